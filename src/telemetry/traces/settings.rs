//! Where spans go and how: the configuration's `otlp`, else OpenTelemetry's environment variables.

use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SpanExporter as _;
use std::time::Duration;

/// How spans are exported.
#[derive(Debug, Clone)]
pub(in crate::telemetry) struct Settings {
    /// The collector's URL; with the path where it is spoken to over HTTP.
    pub(super) endpoint: String,
    http: bool,
    /// How long a span waits for others.
    pub(super) delay: Duration,
    /// For one export.
    pub(super) timeout: Duration,
    /// Exchanges whose spans wait at most.
    pub(super) queue: usize,
    service_name: Option<String>,
}

impl Settings {
    /// None: nothing says where spans go, or that they shall go nowhere. `env` reads an environment variable.
    pub(in crate::telemetry) fn of(otlp: Option<&str>, env: impl Fn(&str) -> Option<String>) -> Option<Self> {
        // The specification calls an empty variable unset.
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let off = env("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || env("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if off {
            return None;
        }
        let first = |names: [&str; 2]| names.into_iter().find_map(&env);
        // Only the variable for traces alone holds the whole URL.
        let (base, whole) = match (otlp, env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) {
            (Some(otlp), _) => (otlp.to_owned(), false),
            (None, Some(whole)) => (whole, true),
            (None, None) => match env("OTEL_EXPORTER_OTLP_ENDPOINT") {
                Some(base) => (base, false),
                None => return None,
            },
        };
        let protocol = first(["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
        let http = match protocol.as_deref() {
            None | Some("grpc") => false,
            Some("http/protobuf") => true,
            Some(other) => {
                // A collector that takes JSON takes protobuf at the same URL.
                let http = other.starts_with("http/");
                let instead = if http { "http/protobuf" } else { "grpc" };
                tracing::warn!(protocol = other, instead, "OTEL_EXPORTER_OTLP_PROTOCOL: not supported");
                http
            }
        };
        let endpoint = match base.trim_end_matches('/') {
            base if http && !whole && !base.ends_with("/v1/traces") => format!("{base}/v1/traces"),
            _ => base,
        };
        let number = |name: &str, default: u64| env(name).and_then(|value| value.parse().ok()).unwrap_or(default);
        let timeout = first(["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]);
        let timeout = timeout.and_then(|value| value.parse().ok()).unwrap_or(10_000);
        Some(Settings {
            endpoint,
            http,
            // OpenTelemetry's default is 5 s; who looks at a trace of just now does not want to wait for it.
            delay: Duration::from_millis(number("OTEL_BSP_SCHEDULE_DELAY", 1000).max(1)),
            timeout: Duration::from_millis(timeout),
            queue: usize::try_from(number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)).unwrap_or(2048).min(1 << 20),
            service_name: env("OTEL_SERVICE_NAME"),
        })
    }

    /// The exporter; headers and compression are as their own variables say. Wants a runtime around it.
    ///
    /// # Errors
    /// The endpoint is no URL, or one of those variables is wrong.
    pub(super) fn exporter(&self) -> anyhow::Result<SpanExporter> {
        // Err: there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut exporter = if self.http {
            SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(&self.endpoint)
                .with_timeout(self.timeout)
                .build()?
        } else {
            let builder = SpanExporter::builder().with_tonic().with_endpoint(&self.endpoint).with_timeout(self.timeout);
            match self.endpoint.starts_with("https:") {
                true => builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots()).build()?,
                false => builder.build()?,
            }
        };
        exporter.set_resource(&self.resource());
        Ok(exporter)
    }

    /// Who says it: `OTEL_SERVICE_NAME`, else `OTEL_RESOURCE_ATTRIBUTES`, else ourselves.
    fn resource(&self) -> Resource {
        let mut chance = crate::balance::Chance::seeded();
        let (high, low) = (chance.next_u64(), chance.next_u64());
        // A random UUID (RFC 9562 §5.4).
        let instance = format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        );
        let own = [
            KeyValue::new("service.name", "wayside"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ];
        Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes(own)
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attributes(self.service_name.clone().map(|name| KeyValue::new("service.name", name)))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(otlp: Option<&str>, variables: &[(&str, &str)]) -> Option<(String, bool)> {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::of(otlp, env).map(|settings| (settings.endpoint, settings.http))
    }

    #[test]
    fn the_configuration_goes_first_and_the_variables_after_it() {
        let (base, traces) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let some = |endpoint: &str, http: bool| Some((endpoint.to_owned(), http));
        assert_eq!(of(None, &[]), None);
        assert_eq!(of(None, &[(base, "")]), None);
        assert_eq!(of(Some("http://a:1"), &[(base, "http://b:2")]), some("http://a:1", false));
        assert_eq!(of(None, &[(base, "http://b:2"), (traces, "http://c:3")]), some("http://c:3", false));
        assert_eq!(of(Some("http://a:1/"), &[http]), some("http://a:1/v1/traces", true));
        assert_eq!(of(Some("http://a:1/v1/traces"), &[http]), some("http://a:1/v1/traces", true));
        assert_eq!(of(None, &[(base, "http://b:2"), http]), some("http://b:2/v1/traces", true));
        assert_eq!(of(None, &[(traces, "http://c:3/x"), http]), some("http://c:3/x", true));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
        assert_eq!(of(Some("http://a:1"), &[http, own]), some("http://a:1", false));
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(of(Some("http://a:1"), &[off]), None);
        }
        let json = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json");
        assert_eq!(of(Some("http://a:1"), &[json]), some("http://a:1/v1/traces", true));
    }
}
