//! gRPC with a registry's member, as etcd and Nacos speak it: messages are declared by hand where they are used, so that
//! no compiler of theirs is needed to build the gateway.

use super::members::{CONNECT, dial};
use super::{Failure, Kind};
use crate::base::secret::Secret;
use crate::http::tls::client;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::time::timeout;
use tonic::codegen::tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

/// No answer is larger, bytes.
const MAX_ANSWER: usize = 64 << 20;
/// How much of what a server says is shown, characters.
const SHOWN: usize = 160;

/// A connection with one member.
#[derive(Debug, Clone)]
pub struct Connection {
    member: String,
    channel: Channel,
    /// Sent with each call.
    pub metadata: MetadataMap,
}

impl Connection {
    /// Connects. `pings`: HTTP/2's own, this often; none: the server takes them for an attack.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(member: &str, tls: Option<&client::Settings>, pings: Option<Duration>) -> Result<Self, Failure> {
        // Dialled beforehand, so that what is wrong is told in our words.
        let mut socket = Some(TokioIo::new(dial(member, tls, true).await?));
        let connector = tower::service_fn(move |_| {
            let socket = socket.take().ok_or_else(|| std::io::Error::other("the connection has ended"));
            std::future::ready(socket)
        });
        let mut endpoint = Endpoint::from_static("http://registry").connect_timeout(CONNECT).tcp_nodelay(true);
        if let Some(every) = pings {
            endpoint = endpoint.http2_keep_alive_interval(every).keep_alive_timeout(CONNECT * 3);
            endpoint = endpoint.keep_alive_while_idle(true);
        }
        let channel = timeout(CONNECT, endpoint.connect_with_connector(connector)).await;
        let told = |problem: String| Failure::new(Kind::Unreachable, format!("{member}: cannot connect: {problem}"));
        let channel = channel.map_err(|_| told("no answer in time".to_owned()))?;
        let channel = channel.map_err(|error| told(innermost(&error)))?;
        Ok(Connection { member: member.to_owned(), channel, metadata: MetadataMap::new() })
    }

    /// One message, one answer, in this time.
    ///
    /// # Errors
    /// What the server says, or that it says nothing. `secret`: what must not be quoted.
    pub async fn call<Q, A>(&self, path: &'static str, message: Q, within: Duration) -> Result<A, Refused>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.grpc().await?;
            let codec = tonic_prost::ProstCodec::<Q, A>::default();
            grpc.unary(self.request(message), PathAndQuery::from_static(path), codec).await
        };
        let answer =
            timeout(within, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        answer.map(tonic::Response::into_inner).map_err(|status| self.refused(status))
    }

    /// A stream of messages both ways. It is there when the server has begun to answer, which some do with their first
    /// message only; so there is no deadline in here.
    ///
    /// # Errors
    /// What the server says.
    pub async fn stream<Q, A>(
        &self,
        path: &'static str,
        messages: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Refused>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = self.grpc().await.map_err(|status| self.refused(status))?;
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let stream = grpc.streaming(self.request(messages), PathAndQuery::from_static(path), codec).await;
        stream.map(tonic::Response::into_inner).map_err(|status| self.refused(status))
    }

    /// What ended a stream, or a call.
    pub fn refused(&self, status: Status) -> Refused {
        Refused { member: self.member.clone(), status }
    }

    async fn grpc(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(innermost(&error)))?;
        Ok(grpc.max_decoding_message_size(MAX_ANSWER))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.metadata.clone();
        request
    }
}

/// A call that was not answered with success.
#[derive(Debug)]
pub struct Refused {
    member: String,
    /// As gRPC has it.
    pub status: Status,
}

impl Refused {
    /// As a registry's failure. `secret`: what must not be quoted.
    pub fn failure(&self, secret: Option<&Secret>) -> Failure {
        let kind = match self.status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Kind::Denied,
            Code::DeadlineExceeded => Kind::Silent,
            Code::InvalidArgument | Code::Unimplemented | Code::OutOfRange | Code::ResourceExhausted => Kind::BadAnswer,
            _ => Kind::Unreachable,
        };
        let status = &self.status;
        let said = std::error::Error::source(status).map_or_else(|| shown(status.message()), innermost);
        let said = if said.is_empty() { status.code().description().to_owned() } else { said };
        let said = secret.map_or(said.clone(), |secret| secret.redact(&said));
        Failure::new(kind, format!("{}: {said}", self.member))
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        refused.failure(None)
    }
}

/// The innermost cause, which is what helps, on one line.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    shown(&cause.to_string())
}

fn shown(said: &str) -> String {
    said.chars().take(SHOWN).map(|char| if char.is_control() { ' ' } else { char }).collect()
}
