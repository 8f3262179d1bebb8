//! How many exchanges services have and may have, and how many connections.

use super::text::Text;
use crate::service::Service;
use crate::service::admission::Over;
use std::sync::Arc;

/// What is shown of all services, and of those with limits.
pub(super) fn admission(text: &mut Text, services: &[&Arc<Service>]) {
    let mut gauge = |name, help, value: fn(&Service) -> Option<u32>| {
        text.family(name, "gauge", help);
        for service in services {
            if let Some(value) = value(service) {
                text.sample(name, &[("service", &service.name)], value);
            }
        }
    };
    let name = "wayside_upstream_connections";
    gauge(name, "Connections to the service's endpoints that are open.", |of| Some(of.live.admission.sockets.open()));
    let name = "wayside_upstream_pending";
    gauge(name, "Requests that wait for a connection.", |of| Some(of.live.admission.sockets.pending()));
    let name = "wayside_service_in_flight";
    gauge(name, "Exchanges with the service, where they are limited.", |of| {
        of.settings.is_limited().then(|| of.live.admission.places.in_flight())
    });
    let name = "wayside_service_limit";
    gauge(name, "How many there may be now, where there is a limit.", |of| {
        Some(of.live.admission.places.limit()).filter(|limit| of.settings.is_limited() && *limit < u32::MAX)
    });
    let name = "wayside_queue_length";
    gauge(name, "Requests that wait for the service, or an endpoint of it, to have room.", |of| {
        of.settings.is_limited().then(|| of.live.admission.places.waiting() + of.live.group.lobby.waiting())
    });
    let limited = || services.iter().filter(|service| service.settings.is_limited());
    let name = "wayside_queued_total";
    text.family(name, "counter", "Requests that had to wait for the service to have room.");
    for service in limited() {
        text.sample(name, &[("service", &service.name)], service.live.admission.places.queued());
    }
    let name = "wayside_overload_refused_total";
    text.family(name, "counter", "Requests that were refused since the service had no room, by why.");
    for service in limited() {
        for over in Over::ALL {
            let count = service.live.admission.places.refused(over);
            text.sample(name, &[("service", &service.name), ("over", over.name())], count);
        }
    }
}
