use super::*;
use crate::discovery::registry::nacos::messages::Payload;
use crate::discovery::{Report, Reports, Source};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

fn settings(text: &str) -> Result<Build, String> {
    read(toml::from_str(text).unwrap(), Path::new("/etc"))
}

#[test]
fn keys_are_read() {
    assert!(settings("address = 'a:8848'").is_ok());
    let all = "address = ['a:8848', 'b:8848']\nnamespace = 'n'\ngroup = 'g'\nclusters = ['c']\nusername = 'u'\n\
               password_file = 'p'\nconfirm_after = '1s'\ntls = {}";
    assert!(settings(all).is_ok());
    for (text, problem) in [
        ("address = 'a:65000'", "leaves no room for the port of gRPC"),
        ("address = 'a:8848'\nclusters = 'c'", "`clusters`: "),
        ("address = 'a:8848'\nprefix = '/'", "unknown field `prefix`"),
    ] {
        let told = settings(text).err().unwrap();
        assert!(told.contains(problem), "{text} gave {told}");
    }
}

/// A server that says what a test wants it to.
struct Fake {
    /// Answers to subscriptions, in order; the last one stays.
    lists: Mutex<VecDeque<Value>>,
    /// What is pushed on the newest stream.
    pushes: Mutex<Option<mpsc::UnboundedSender<Payload>>>,
    /// What the client says on streams.
    said: mpsc::UnboundedSender<(String, Value)>,
}

fn list(ports: &[u16], at: i64) -> Value {
    let hosts: Vec<Value> = ports.iter().map(|port| json!({"ip": "10.0.0.1", "port": port})).collect();
    json!({"name": "users", "groupName": "DEFAULT_GROUP", "hosts": hosts, "lastRefTime": at})
}

fn answer(ports: &[u16], at: i64) -> Value {
    json!({"resultCode": 200, "errorCode": 0, "serviceInfo": list(ports, at)})
}

impl Fake {
    fn answer(&self, kind: &str) -> Value {
        let mut lists = self.lists.lock().unwrap();
        match kind {
            "SubscribeServiceRequest" if lists.len() > 1 => lists.pop_front().unwrap(),
            "SubscribeServiceRequest" => lists[0].clone(),
            _ => json!({"resultCode": 200}),
        }
    }

    /// Pushes as soon as there is a stream.
    fn push(&self, kind: &str, body: &Value) {
        let payload = Payload::new(kind, body, None);
        self.pushes.lock().unwrap().as_ref().unwrap().send(payload).unwrap();
    }

    fn notify(&self, info: Value) {
        self.push("NotifySubscriberRequest", &json!({"requestId": "7", "serviceInfo": info}));
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let fake = Arc::clone(&self);
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(Arc::clone(&fake).talk(request, respond));
                }
            });
        }
    }

    async fn talk(
        self: Arc<Self>,
        request: http::Request<h2::RecvStream>,
        mut respond: h2::server::SendResponse<Bytes>,
    ) {
        let unary = request.uri().path() == "/Request/request";
        let (mut body, mut came) = (request.into_body(), BytesMut::new());
        let response = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut answers = respond.send_response(response, false).unwrap();
        let (to, mut pushes) = mpsc::unbounded_channel();
        if !unary {
            *self.pushes.lock().unwrap() = Some(to);
        }
        loop {
            tokio::select! {
                Some(push) = pushes.recv() => answers.send_data(frame(&push), false).unwrap(),
                data = body.data() => {
                    let Some(Ok(data)) = data else { return };
                    let _ = body.flow_control().release_capacity(data.len());
                    came.extend_from_slice(&data);
                }
            }
            while came.len() >= 5 && came.len() >= 5 + (&came[1..5]).get_u32() as usize {
                let length = (&came[1..5]).get_u32() as usize;
                let payload = Payload::decode(&came.split_to(5 + length)[5..]).unwrap();
                if unary {
                    let answer = Payload::new("Response", &self.answer(payload.kind()), None);
                    answers.send_data(frame(&answer), false).unwrap();
                    let trailers =
                        [("grpc-status", "0")].map(|(key, value)| (key.parse().unwrap(), value.parse().unwrap()));
                    return answers.send_trailers(trailers.into_iter().collect()).unwrap();
                }
                let _ = self.said.send((payload.kind().to_owned(), payload.read().unwrap()));
            }
        }
    }
}

fn frame(payload: &Payload) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(payload.encoded_len() as u32);
    payload.encode(&mut frame).unwrap();
    frame.freeze()
}

struct Test {
    fake: Arc<Fake>,
    said: mpsc::UnboundedReceiver<(String, Value)>,
    reports: mpsc::Receiver<(Arc<str>, Report)>,
    tasks: tokio::task::JoinSet<()>,
}

impl Test {
    async fn start(lists: impl IntoIterator<Item = Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let text = format!("address = '127.0.0.1:{}'", listener.local_addr().unwrap().port() - 1000);
        let (to, said) = mpsc::unbounded_channel();
        let lists = Mutex::new(lists.into_iter().collect());
        let fake = Arc::new(Fake { lists, pushes: Mutex::new(None), said: to });
        let source: Arc<dyn Source> = settings(&text).unwrap()().unwrap();
        let lookup = Lookup { service: "users".into(), registered_as: "users".into(), tags: vec![], allow_empty: true };
        let (to, reports) = mpsc::channel(1);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(Arc::clone(&fake).serve(listener));
        tasks.spawn(source.watch(vec![lookup], Reports { source: "test".into(), to }));
        Test { fake, said, reports, tasks }
    }

    /// The next report that is no confirmation: ports, or a problem.
    async fn next(&mut self) -> String {
        let next = async {
            loop {
                match self.reports.recv().await.unwrap().1 {
                    Report::Service(_, seen) => {
                        let ports: Vec<u16> = seen.endpoints.iter().map(|entry| entry.address.port()).collect();
                        return format!("{ports:?}");
                    }
                    Report::Failed(_, problem) => return problem,
                    Report::All(_) | Report::Confirmed => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), next).await.unwrap()
    }

    async fn said(&mut self, kind: &str) -> Value {
        let said = async {
            loop {
                let (said, value) = self.said.recv().await.unwrap();
                if said == kind {
                    return value;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), said).await.unwrap()
    }
}

#[tokio::test]
async fn an_older_push_is_dropped_and_each_is_answered() {
    let early = json!({"resultCode": 500, "errorCode": 301, "message": "Connection is unregistered."});
    let mut test = Test::start([early.clone(), early, answer(&[1, 2], 100)]).await;
    assert_eq!(test.next().await, "[1, 2]");
    assert_eq!(test.said("ConnectionSetupRequest").await["tenant"], "public");
    test.fake.notify(list(&[1], 50));
    assert_eq!(test.said("NotifySubscriberResponse").await, json!({"requestId": "7", "resultCode": 200}));
    let mut other = list(&[9], 300);
    other["name"] = json!("others");
    test.fake.notify(other);
    test.fake.notify(list(&[1, 2, 3], 200));
    assert_eq!(test.next().await, "[1, 2, 3]");
    test.fake.notify(list(&[1, 2, 3], 200));
    assert_eq!(test.next().await, "[1, 2, 3]");
    test.fake.push("ClientDetectionRequest", &json!({"requestId": "8"}));
    assert_eq!(test.said("ClientDetectionResponse").await["requestId"], "8");
    test.fake.notify(list(&[], 201));
    assert_eq!(test.next().await, "[]");
    assert!(!test.tasks.is_empty());
}

#[tokio::test]
async fn who_is_sent_elsewhere_comes_again() {
    let mut test = Test::start([answer(&[1], 100), answer(&[1, 2], 90)]).await;
    assert_eq!(test.next().await, "[1]");
    test.said("ConnectionSetupRequest").await;
    test.fake.push("ConnectResetRequest", &json!({"requestId": "9", "serverIp": "10.0.0.9", "serverPort": "8848"}));
    let problem = test.next().await;
    assert!(problem.contains("sends its clients to another one"), "{problem}");
    // Another server's clock says nothing.
    assert_eq!(test.next().await, "[1, 2]");
}

#[tokio::test]
async fn what_cannot_be_read_is_a_failure_and_takes_nothing_away() {
    let bad = json!({"resultCode": 200});
    let mut test = Test::start([answer(&[1], 100), bad, answer(&[1, 3], 100)]).await;
    assert_eq!(test.next().await, "[1]");
    test.said("ConnectionSetupRequest").await;
    test.fake.push("NotifySubscriberRequest", &json!({"requestId": "7", "serviceInfo": {"hosts": 7}}));
    let problem = test.next().await;
    assert!(problem.contains("what it pushes cannot be read"), "{problem}");
    let problem = test.next().await;
    assert!(problem.contains("the answer has no list"), "{problem}");
    assert!(test.next().await.contains("the answer has no list"));
    assert_eq!(test.next().await, "[1, 3]");
}
