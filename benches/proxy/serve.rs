//! What the origin and the bare proxies have in common: threads with a runtime each, listeners, a ready line, an end.

use http::header::{self, HeaderName};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Read;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
pub use wayside::base::local::LocalExec;

/// What a proxy takes off a request.
pub const HOP_BY_HOP: [HeaderName; 5] =
    [header::CONNECTION, header::TE, header::TRANSFER_ENCODING, header::UPGRADE, HeaderName::from_static("keep-alive")];

/// Binds a port, or another socket on one that is bound.
pub fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Starts a thread with a runtime of its own, and runs what `start` spawns.
pub fn worker(start: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    std::thread::spawn(move || -> std::io::Result<()> {
        let options = tokio::runtime::LocalOptions::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options)?;
        runtime.block_on(async move {
            start()?;
            std::future::pending().await
        })
    });
}

/// Accepts on this thread for ever.
pub fn accept<F>(
    listener: std::net::TcpListener,
    serve: impl Fn(TokioIo<TcpStream>) -> F + 'static,
) -> std::io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::task::spawn_local(serve(TokioIo::new(stream)));
        }
    });
    Ok(())
}

/// Says where it listens, and goes on until whoever started it is gone.
pub fn until_closed(addresses: &[SocketAddr]) {
    let urls: Vec<String> = addresses.iter().map(|address| format!("http://{address}")).collect();
    println!("ready {}", urls.join(" "));
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
