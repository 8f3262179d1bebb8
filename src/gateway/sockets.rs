//! Listener sockets.

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpListener};

/// Connections that the kernel holds for a worker that is busy.
const BACKLOG: i32 = 4096;

/// One socket a worker on the same port. Bound once without sharing first, so that a second gateway on the port fails.
pub(super) fn bind(address: SocketAddr, workers: usize) -> anyhow::Result<(SocketAddr, Vec<TcpListener>)> {
    let failed = || format!("gateway.listen: cannot listen on {address}");
    let probe = TcpListener::bind(address).with_context(failed)?;
    let address = probe.local_addr()?;
    drop(probe);
    let one = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    let group = (0..workers).map(|_| one()).collect::<std::io::Result<_>>().with_context(failed)?;
    Ok((address, group))
}
