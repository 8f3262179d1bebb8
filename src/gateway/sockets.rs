//! Listener sockets.

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpListener};

/// Connections that the kernel holds for a worker that is busy.
const BACKLOG: i32 = 4096;

/// One socket a worker on the same port. They are bound, and refuse connections until they listen.
pub(super) struct Group {
    /// With the port that the system gave, where it was 0.
    pub(super) address: SocketAddr,
    sockets: Vec<Socket>,
}

impl Group {
    /// Takes the address.
    ///
    /// # Errors
    /// It is taken already, or not ours.
    pub(super) fn bind(address: SocketAddr, workers: usize) -> anyhow::Result<Self> {
        let address = is_free(address)?;
        let one = || -> std::io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.bind(&address.into())?;
            Ok(socket)
        };
        let sockets = (0..workers).map(|_| one()).collect::<std::io::Result<_>>();
        Ok(Group { address, sockets: sockets.with_context(|| failed(address))? })
    }

    /// From now on, all of them accept.
    ///
    /// # Errors
    /// Somebody else listens there meanwhile.
    pub(super) fn listen(self) -> anyhow::Result<Vec<TcpListener>> {
        is_free(self.address)?;
        let listen = |socket: Socket| socket.listen(BACKLOG).map(|()| socket.into());
        let listening = self.sockets.into_iter().map(listen).collect::<std::io::Result<_>>();
        listening.with_context(|| failed(self.address))
    }
}

/// Binds without sharing, so that a second gateway on the port fails: sockets that share it would not notice.
fn is_free(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    let probe = TcpListener::bind(address).with_context(|| failed(address))?;
    Ok(probe.local_addr()?)
}

fn failed(address: SocketAddr) -> String {
    format!("gateway.listen: cannot listen on {address}")
}
