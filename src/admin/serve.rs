//! The admin's thread: accepts, within bounds on how many and how long.

use super::write::Peer;
use super::{Admin, router};
use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Connections at once; one more waits until another one ends.
const CONNECTIONS: usize = 64;
/// From a head's first byte to its last, and for a connection without a request.
const HEAD: Duration = Duration::from_secs(5);
/// A connection ends after this time, once its request is answered...
const LIFETIME: Duration = Duration::from_secs(60);
/// ...or is not taken within this.
const LAST: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// After an accept error.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers on a thread of its own for as long as the process lives.
///
/// # Errors
/// The thread or its runtime cannot be started.
pub fn serve(listener: TcpListener, admin: Admin) -> std::io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let work = move || {
        loop {
            let accepting = AssertUnwindSafe(|| runtime.block_on(accept(&listener, admin.clone())));
            // It never ends, so this is a bug of ours, which must not leave the gateway without its admin.
            if catch_unwind(accepting).is_err() {
                tracing::error!("the admin panicked and begins anew");
            }
        }
    };
    std::thread::Builder::new().name("admin".into()).spawn(work)
}

async fn accept(listener: &tokio::net::TcpListener, admin: Admin) {
    let router = router(admin);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed, so there is always a permit some time.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(Peer(peer))));
        tokio::spawn(async move {
            connection(stream, service).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, service: TowerToHyperService<axum::Router>) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // How a connection of an operator's ends is nobody's business.
    if tokio::time::timeout(LIFETIME, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(LAST, connection).await;
    }
}
