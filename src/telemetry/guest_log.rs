//! What policies log goes into the process log, with the policy, its version and the trace.

use super::safe::OneLine;
use crate::service::record::Record;
use tracing::Level;

/// Nothing is put together for a level that is off.
pub(super) fn tell(record: &Record) {
    for call in record.calls.iter().filter(|call| !call.logs.is_empty()) {
        let (policy, trace) = (&*call.policy, record.trace.trace_id);
        let version = call.version.as_deref().unwrap_or("none");
        for line in &call.logs {
            let message = OneLine(&line.message);
            match line.level {
                Level::ERROR => tracing::error!(policy, version, trace = format_args!("{trace:032x}"), "{message}"),
                Level::WARN => tracing::warn!(policy, version, trace = format_args!("{trace:032x}"), "{message}"),
                Level::INFO => tracing::info!(policy, version, trace = format_args!("{trace:032x}"), "{message}"),
                _ => tracing::debug!(policy, version, trace = format_args!("{trace:032x}"), "{message}"),
            }
        }
    }
}
