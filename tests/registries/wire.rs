//! A network between the gateway and a registry that does what networks do: passes, delays, goes dark, refuses.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "for tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What it does to all that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Passing,
    /// Each piece comes so much later.
    Slow(Duration),
    /// Connections are taken, but nothing comes through, and nothing ends.
    Dark,
    /// Connections are broken off, and so is each new one.
    Broken,
}

/// A way to one server.
#[derive(Debug)]
pub struct Wire {
    /// Where it begins.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    tasks: Vec<JoinHandle<()>>,
}

impl Wire {
    /// To this server, passing.
    pub async fn to(server: SocketAddr) -> Self {
        Self::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), server).await
    }

    /// The same, beginning at this address.
    pub async fn from(address: SocketAddr, server: SocketAddr) -> Self {
        Self::over(vec![(TcpListener::bind(address).await.unwrap(), server)])
    }

    /// To a server with a second port that is so much higher, which is reached in the same way.
    pub async fn pair(server: SocketAddr, higher: u16) -> Self {
        loop {
            let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let port = first.local_addr().unwrap().port().checked_add(higher).unwrap_or(0);
            let second = SocketAddr::new(server.ip(), server.port() + higher);
            // Somebody may have that one, or there may be none.
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
                && port > 0
            {
                return Self::over(vec![(first, server), (listener, second)]);
            }
        }
    }

    fn over(ways: Vec<(TcpListener, SocketAddr)>) -> Self {
        let address = ways[0].0.local_addr().unwrap();
        let (state, states) = watch::channel(State::Passing);
        let accept = async |listener: TcpListener, server, states: watch::Receiver<State>| {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(carry(client, server, states.clone()));
                while connections.try_join_next().is_some() {}
            }
        };
        let tasks = ways.into_iter().map(|(listener, server)| tokio::spawn(accept(listener, server, states.clone())));
        Wire { address, state, tasks: tasks.collect() }
    }

    /// The same for a server that hears datagrams, too, on the same port.
    pub async fn with_datagrams(server: SocketAddr) -> Self {
        loop {
            let mut wire = Self::to(server).await;
            // Somebody else may have this port.
            let Ok(socket) = UdpSocket::bind(wire.address).await else { continue };
            let datagrams = tokio::spawn(carry_datagrams(Arc::new(socket), server, wire.state.subscribe()));
            wire.tasks.push(datagrams);
            return wire;
        }
    }

    /// From now on.
    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut states: watch::Receiver<State>) {
    let broken = |states: &watch::Receiver<State>| *states.borrow() == State::Broken;
    if broken(&states) {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (up, down) = (states.clone(), states.clone());
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let both = async { tokio::join!(one_way(from_client, to_server, up), one_way(from_server, to_client, down)) };
    tokio::select! {
        _ = both => {}
        _ = states.wait_for(|state| *state == State::Broken) => {}
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut states: watch::Receiver<State>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let state = *states.borrow_and_update();
        match state {
            State::Slow(wait) => tokio::time::sleep(wait).await,
            State::Dark => drop(states.wait_for(|state| *state != State::Dark).await),
            State::Passing | State::Broken => {}
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            break;
        }
    }
    // What ends in the dark is not told before it is light again.
    let _ = states.wait_for(|state| *state != State::Dark).await;
    let _ = to.shutdown().await;
}

/// Each datagram is a question that is answered by one, from a socket of its own. In the dark, and where the way is broken,
/// they are lost.
async fn carry_datagrams(socket: Arc<UdpSocket>, server: SocketAddr, states: watch::Receiver<State>) {
    let mut questions = JoinSet::new();
    let mut bytes = vec![0; 64 << 10];
    loop {
        let Ok((read, client)) = socket.recv_from(&mut bytes).await else { continue };
        let (socket, states, question) = (Arc::clone(&socket), states.clone(), bytes[..read].to_vec());
        questions.spawn(async move {
            let lost = || matches!(*states.borrow(), State::Dark | State::Broken);
            let out = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            if lost() || out.send_to(&question, server).await.is_err() {
                return;
            }
            let mut answer = vec![0; 64 << 10];
            let answered = tokio::time::timeout(Duration::from_secs(5), out.recv(&mut answer)).await;
            let Ok(Ok(read)) = answered else { return };
            let state = *states.borrow();
            if let State::Slow(wait) = state {
                tokio::time::sleep(wait).await;
            }
            if !lost() {
                let _ = socket.send_to(&answer[..read], client).await;
            }
        });
        while questions.try_join_next().is_some() {}
    }
}
