//! What signals do: SIGINT and SIGTERM end the gateway, from the first moment on. SIGHUP is control's; SIGUSR1 and SIGUSR2
//! do nothing, where they would kill.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end the gateway. Those that do not are caught for as long as the process lives.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches them from now on. Must be called on a tokio runtime.
    pub(super) fn catch() -> io::Result<Self> {
        for kind in [SignalKind::hangup(), SignalKind::user_defined1(), SignalKind::user_defined2()] {
            // Caught once is caught for good, whether or not somebody listens.
            drop(signal(kind)?);
        }
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Somebody wants the gateway to end.
    pub(super) async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
