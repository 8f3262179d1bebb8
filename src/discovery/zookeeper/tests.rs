use super::*;
use crate::discovery::registry::zookeeper::jute::{Reader, Writer};
use crate::discovery::registry::zookeeper::whole;
use crate::discovery::{Report, Reports, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

fn settings(text: &str) -> Result<Build, String> {
    read(toml::from_str(text).unwrap(), Path::new("/etc"))
}

#[test]
fn keys_are_read() {
    assert!(settings("address = 'a:2181'\npath = '/services'\nconfirm_after = '1s'").is_ok());
    assert!(settings("address = ['a:2181', 'b:2181']\npath = '/'\nusername = 'u'\npassword = 'p'\ntls = {}").is_ok());
    for (text, problem) in [
        ("address = 'a:2181'", "missing field `path`"),
        ("address = 'a:2181'\npath = 'services'", "`path`: `services` is no path of a node, like `/services`"),
        ("address = 'a:2181'\npath = '/a//b'", "is no path of a node"),
        ("address = 'a:2181'\npath = '/a/../b'", "is no path of a node"),
        ("address = 'a:2181'\npath = ''", "is no path of a node"),
        ("address = 'a'\npath = '/'", "`a` is not HOST:PORT"),
        ("address = 'a:2181'\npath = '/'\nroot = '/'", "unknown field `root`"),
    ] {
        let told = settings(text).err().unwrap();
        assert!(told.contains(problem), "{text} gave {told}");
    }
}

/// A server as it was before 3.6: whoever asks for a recursive watch is sent away. Whoever asks for a path's next change is told once.
#[derive(Debug, Default)]
struct Old {
    nodes: BTreeMap<String, Vec<u8>>,
    watched: BTreeSet<String>,
    told: Option<mpsc::UnboundedSender<Vec<u8>>>,
}

impl Old {
    fn set(&mut self, path: &str, data: Option<&str>) {
        match data {
            Some(data) => drop(self.nodes.insert(path.to_owned(), data.into())),
            None => drop(self.nodes.remove(path)),
        }
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        for path in [path, parent] {
            if self.watched.remove(path)
                && let Some(told) = &self.told
            {
                let _ = told.send(Writer::default().int(-1).long(1).int(0).int(3).int(3).text(path).frame());
            }
        }
    }

    fn answer(&mut self, number: i32, operation: i32, reader: &mut Reader<'_>) -> Vec<u8> {
        let path = reader.text().unwrap_or_default();
        let head = |code| Writer::default().int(number).long(1).int(code);
        let below = |name: &String| name.strip_prefix(path)?.strip_prefix('/').map(str::to_owned);
        match (operation, self.nodes.get(path)) {
            (11, _) => return head(0).frame(),
            (106, _) => return head(-6).frame(),
            (3 | 4 | 8, _) => drop(self.watched.insert(path.to_owned())),
            _ => {}
        }
        match (operation, self.nodes.get(path)) {
            (4 | 8 | 3, None) => head(-101).frame(),
            (4, Some(data)) => head(0).buffer(data).frame(),
            (8, Some(_)) => {
                let names: Vec<String> = self.nodes.keys().filter_map(below).collect();
                let count = i32::try_from(names.len()).unwrap();
                names.iter().fold(head(0).int(count), |all, name| all.text(name)).frame()
            }
            _ => head(0).frame(),
        }
    }
}

async fn serve(listener: TcpListener, server: Arc<Mutex<Old>>) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        converse(socket, &server).await;
    }
}

async fn converse(mut socket: TcpStream, server: &Mutex<Old>) {
    let (told, mut events) = mpsc::unbounded_channel();
    server.lock().unwrap().told = Some(told);
    let (mut came, mut greeted) = (Vec::new(), false);
    loop {
        while let Some(frame) = whole(&came).unwrap().map(<[u8]>::to_vec) {
            came.drain(..4 + frame.len());
            let answer = if greeted {
                let mut reader = Reader::new(&frame);
                let (number, operation) = (reader.int().unwrap(), reader.int().unwrap());
                server.lock().unwrap().answer(number, operation, &mut reader)
            } else {
                Writer::default().int(0).int(3000).long(7).buffer(&[1; 16]).frame()
            };
            greeted = true;
            socket.write_all(&answer).await.unwrap();
            if answer.ends_with(&(-6i32).to_be_bytes()) {
                return;
            }
        }
        tokio::select! {
            event = events.recv() => socket.write_all(&event.unwrap()).await.unwrap(),
            read = socket.read_buf(&mut came) => assert!(read.unwrap() > 0),
        }
    }
}

#[tokio::test]
async fn an_old_server_is_followed_by_watches_that_tell_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!("address = '{}'\npath = '/services'", listener.local_addr().unwrap());
    let server = Arc::new(Mutex::new(Old::default()));
    let source: Arc<dyn Source> = settings(&text).unwrap()().unwrap();
    let lookup = Lookup { service: "users".into(), registered_as: "users".into(), tags: vec![], allow_empty: true };
    let (to, mut reports) = mpsc::channel(1);
    let watch = source.watch(vec![lookup], Reports { source: "test".into(), to });
    let change = |path: &str, data: Option<&str>| server.lock().unwrap().set(path, data);
    let steps = async {
        let mut ports = async |wanted: &[u16]| loop {
            let (_, report) = reports.recv().await.unwrap();
            if let Report::Service(_, seen) = report
                && seen.endpoints.iter().map(|entry| entry.address.port()).eq(wanted.iter().copied())
            {
                break;
            }
        };
        ports(&[]).await;
        change("/services/users", Some(""));
        change("/services/users/127.0.0.1:1", Some(""));
        ports(&[1]).await;
        change("/services/users/b", Some("127.0.0.1:2"));
        ports(&[1, 2]).await;
        change("/services/users/b", Some("127.0.0.1:3"));
        ports(&[1, 3]).await;
        change("/services/users/127.0.0.1:1", None);
        ports(&[3]).await;
        change("/services/users/b", None);
        change("/services/users", None);
        ports(&[]).await;
        change("/services/users", Some(""));
        change("/services/users/127.0.0.1:1", Some(""));
        ports(&[1]).await;
    };
    let all = async {
        tokio::select! { () = watch => {}, () = serve(listener, Arc::clone(&server)) => {}, () = steps => {} }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
}
