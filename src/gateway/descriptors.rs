//! How many files and sockets the process may have open.

use crate::http::settings::Gateway;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For everything but connections: listeners, sources, files, pipes.
const OTHERS: u64 = 256;

/// Takes as many as the system gives, and says so where that is not enough for `max_connections`.
pub(super) fn take(gateway: &Gateway) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_err() {
        tracing::warn!("the limit on open files cannot be raised to the hard one");
    }
    // None: no limit.
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    let (most, idle) = (gateway.max_connections as u64, gateway.idle_upstream_connections as u64);
    // A request has a connection on either side.
    let needed = 2 * most + idle + OTHERS;
    if limit < needed {
        let possible = limit.saturating_sub(idle + OTHERS) / 2;
        tracing::warn!(
            limit,
            needed,
            "gateway.max_connections = {most} cannot be had with so few open files: about {possible} can; raise the hard \
             limit (ulimit -Hn, LimitNOFILE=) or lower the key"
        );
    }
}
