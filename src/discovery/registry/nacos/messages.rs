//! The messages that are spoken with Nacos: one envelope, after `nacos_grpc_service.proto` of its source,
//! <https://github.com/alibaba/nacos>, with JSON in it, of which only the fields that are used are named.

use prost::Message;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// The envelope of every request, answer and push.
#[derive(Clone, PartialEq, Message)]
pub struct Payload {
    /// What is in it, and what is said beside it.
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<Metadata>,
    /// JSON.
    #[prost(message, optional, tag = "3")]
    pub body: Option<Body>,
}

/// What stands on an envelope.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    /// The type of what is in it, such as `SubscribeServiceRequest`.
    #[prost(string, tag = "3")]
    pub kind: String,
    /// Such as `accessToken`.
    #[prost(map = "string, string", tag = "7")]
    pub headers: HashMap<String, String>,
}

/// A `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Body {
    /// JSON.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

impl Payload {
    /// An envelope with something in it.
    pub fn new(kind: &str, value: &impl Serialize, token: Option<&str>) -> Self {
        let headers = token.map(|token| ("accessToken".to_owned(), token.to_owned())).into_iter().collect();
        // Nothing that is sent here cannot be written.
        let value = serde_json::to_vec(value).unwrap_or_default();
        Payload { metadata: Some(Metadata { kind: kind.to_owned(), headers }), body: Some(Body { value }) }
    }

    /// The type of what is in it.
    pub fn kind(&self) -> &str {
        self.metadata.as_ref().map_or("", |metadata| &metadata.kind)
    }

    /// What is in it.
    ///
    /// # Errors
    /// It is something else.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.body.as_ref().map_or(&[], |body| body.value.as_slice()))
    }
}

/// A server that is asked for nothing.
#[derive(Debug, Serialize)]
pub(super) struct Nothing {}

/// Who the client is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Setup<'a> {
    pub(super) client_version: &'a str,
    pub(super) tenant: &'a str,
    pub(super) labels: BTreeMap<&'a str, &'a str>,
    pub(super) abilities: Nothing,
}

/// Asks for a service's instances, and to be told when they change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Subscribe<'a> {
    pub(super) namespace: &'a str,
    pub(super) service_name: &'a str,
    pub(super) group_name: &'a str,
    pub(super) subscribe: bool,
    pub(super) clusters: &'a str,
}

/// The client's answer to a push.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Taken<'a> {
    pub(super) request_id: &'a str,
    pub(super) result_code: i32,
}

/// A server's answer to any request; what it does not say is empty, and no success.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Reply {
    /// 200: success.
    pub result_code: i32,
    /// Why there is none.
    pub error_code: i32,
    /// The same in words.
    pub message: Option<String>,
    /// What was asked for.
    pub service_info: Option<ServiceInfo>,
}

impl Reply {
    /// The code of success.
    pub const SUCCESS: i32 = 200;

    /// Why there is no success.
    pub fn problem(&self) -> Option<i32> {
        let code = if self.error_code == 0 { self.result_code } else { self.error_code };
        (self.result_code != Self::SUCCESS).then_some(code)
    }
}

/// What a server sends unasked; what it does not say is empty.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Push {
    /// Named in the answer.
    pub request_id: String,
    /// The service that changed.
    pub service_info: Option<ServiceInfo>,
}

/// A service's instances, whole.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceInfo {
    /// The service's name, alone or as `GROUP@@NAME`.
    pub name: String,
    /// Its group.
    pub group_name: String,
    /// Its instances, each read by whoever knows what it means.
    pub hosts: Vec<serde_json::Value>,
    /// When this was so: milliseconds of the server's clock.
    pub last_ref_time: i64,
}

impl ServiceInfo {
    /// The service's group and name.
    pub fn service(&self) -> (&str, &str) {
        let (group, name) = self.name.split_once("@@").unwrap_or((&self.group_name, &self.name));
        (if self.group_name.is_empty() { group } else { &self.group_name }, name)
    }
}
