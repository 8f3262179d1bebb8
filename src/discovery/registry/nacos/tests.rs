use super::*;
use serde_json::json;

#[test]
fn the_port_of_grpc_is_a_thousand_higher() {
    assert_eq!(grpc_member("a:8848"), Ok("a:9848".to_owned()));
    assert_eq!(grpc_member("[::1]:64535"), Ok("[::1]:65535".to_owned()));
    assert!(grpc_member("a:64536").unwrap_err().contains("leaves no room"));
}

#[test]
fn an_answer_without_a_code_is_no_success() {
    let problem = |text: &str| serde_json::from_str::<Reply>(text).unwrap().problem();
    assert_eq!(problem("{}"), Some(0));
    assert_eq!(problem(r#"{"resultCode":200,"errorCode":0,"success":true}"#), None);
    assert_eq!(problem(r#"{"resultCode":500,"errorCode":301,"message":"Connection is unregistered."}"#), Some(301));
    assert_eq!(problem(r#"{"resultCode":500,"errorCode":0}"#), Some(500));
}

#[test]
fn a_service_is_known_by_group_and_name() {
    let service = |value| serde_json::from_value::<ServiceInfo>(value).unwrap();
    for value in [
        json!({"name": "users", "groupName": "web", "hosts": [], "lastRefTime": 7}),
        json!({"name": "web@@users", "groupName": "web"}),
        json!({"name": "web@@users"}),
    ] {
        assert_eq!(service(value).service(), ("web", "users"));
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0u8.., 0..60)) {
        use prost::Message;
        if let Ok(payload) = Payload::decode(bytes.as_slice()) {
            let _ = (payload.kind(), payload.read::<Push>(), payload.read::<Reply>());
        }
        let payload = Payload { metadata: None, body: Some(messages::Body { value: bytes }) };
        let _ = (payload.read::<Push>(), payload.read::<Reply>());
    }
    #[test]
    fn no_near_miss_makes_it_panic(text in r#"\{("(resultCode|errorCode|serviceInfo|requestId|hosts|lastRefTime|name|groupName)":("[a@]{0,5}"|-?[0-9]{1,19}|null|\{\}|\[\]|\[null\]),?){0,4}\}"#) {
        let payload = Payload { metadata: None, body: Some(messages::Body { value: text.into() }) };
        let _ = (payload.read::<Push>(), payload.read::<Reply>());
        let _ = payload.read::<ServiceInfo>().map(|info| info.service().1.len());
    }
}
