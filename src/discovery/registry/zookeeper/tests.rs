use super::message::{Stat, Watch};
use super::*;
use tokio::net::TcpListener;

/// What a server says, as it is: the answer to the greeting, then these frames.
async fn said(frames: Vec<Vec<u8>>) -> Result<Session, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let member = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        for frame in frames {
            socket.write_all(&frame).await.unwrap();
        }
        // Until the client is gone.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    Session::open(&member, None, Duration::from_secs(3), None).await
}

fn greeting(timeout_ms: i32) -> Vec<u8> {
    jute::Writer::default().int(0).int(timeout_ms).long(7).buffer(&[1; 16]).frame()
}

fn answer(number: i32, code: i32) -> jute::Writer {
    jute::Writer::default().int(number).long(1).int(code)
}

fn event(path: &str) -> Vec<u8> {
    answer(-1, 0).int(3).int(3).text(path).frame()
}

const GET: Request<'_> = Request::Get("/a", Watch::No);

#[tokio::test]
async fn answers_come_in_order_with_changes_between() {
    let stat = answer(2, 0).long(1).long(2).long(3).long(4).int(5).int(6).int(7).long(8).frame();
    let data = answer(1, 0).buffer(b"one").frame();
    let all = vec![greeting(3000), event("/x"), data, event("/y"), stat, answer(3, -102).frame()];
    let mut session = said(all).await.unwrap();
    assert_eq!((session.ticket().session, session.ticket().password.len()), (7, 16));
    assert_eq!((session.beat, session.silence), (Duration::from_secs(1), Duration::from_secs(2)));
    session.send(&[GET, Request::Exists("/b", Watch::Once), GET]).await.unwrap();
    assert_eq!(session.answer().await, Ok(Answer::Data(b"one".to_vec())));
    assert_eq!(session.answer().await, Ok(Answer::Node(Stat { version: 5, owner: 8 })));
    assert_eq!(session.answer().await, Ok(Answer::Refused(Refusal::NotAllowed)));
    for path in ["/x", "/y"] {
        assert_eq!(session.heard(Instant::now()).await, Ok(Heard::Change(path.to_owned())));
    }
    assert_eq!(session.heard(Instant::now()).await, Ok(Heard::Nothing));
}

#[tokio::test]
async fn what_no_server_should_say_ends_the_session() {
    let huge = (MAX_FRAME + 1) as u32;
    for (frames, kind, problem) in [
        (vec![huge.to_be_bytes().to_vec()], Kind::BadAnswer, "cannot be read"),
        (vec![(-1i32).to_be_bytes().to_vec()], Kind::BadAnswer, "cannot be read"),
        (vec![jute::Writer::default().int(0).frame()], Kind::BadAnswer, "is not ZooKeeper's"),
        (vec![greeting(0)], Kind::BadAnswer, "opens no session"),
        (vec![greeting(-1)], Kind::BadAnswer, "opens no session"),
        (vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], Kind::BadAnswer, "cannot be read"),
    ] {
        let failure = said(frames).await.unwrap_err();
        assert!(failure.kind == kind && failure.problem.contains(problem), "{failure:?}");
    }
    for (frame, kind) in [
        (answer(2, 0).buffer(b"").frame(), Kind::BadAnswer),
        (answer(1, 0).int(5).frame(), Kind::BadAnswer),
        (answer(1, EXPIRED).frame(), Kind::Unreachable),
        (answer(-1, 0).int(3).frame(), Kind::BadAnswer),
    ] {
        let mut session = said(vec![greeting(3000), frame]).await.unwrap();
        assert_eq!(session.ask(GET).await.unwrap_err().kind, kind);
    }
    // An answer that nobody asked for.
    let mut session = said(vec![greeting(3000), answer(1, 0).frame()]).await.unwrap();
    assert_eq!(session.heard(Instant::now() + SILENCE).await.unwrap_err().kind, Kind::BadAnswer);
}

#[tokio::test]
async fn changes_that_nobody_could_keep_end_the_session() {
    let long = "/".repeat(MAX_CHANGES / 4);
    let mut frames = vec![greeting(3000)];
    frames.extend((0..5).map(|_| event(&long)));
    frames.push(answer(1, 0).buffer(b"").frame());
    let failure = said(frames).await.unwrap().ask(GET).await.unwrap_err();
    assert!(failure.problem.contains("more changes than are kept"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_failure() {
    let mut session = said(vec![greeting(60_000)]).await.unwrap();
    let from = Instant::now();
    assert_eq!(session.heard(from + Duration::from_secs(1)).await, Ok(Heard::Nothing));
    let failure = session.heard(from + Duration::from_secs(60)).await.unwrap_err();
    assert_eq!((failure.kind, from.elapsed().as_secs()), (Kind::Silent, 4));
    let mut session = said(vec![greeting(3000)]).await.unwrap();
    let from = Instant::now();
    assert_eq!(session.ask(GET).await.unwrap_err().kind, Kind::Silent);
    assert_eq!(from.elapsed().as_secs(), 2);
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0u8.., 0..80), operation in 0usize..7) {
        use Operation::{Authenticate, Children, Create, Exists, Follow, Get, Set};
        let operation = [Create, Exists, Get, Set, Children, Authenticate, Follow][operation];
        if let Ok(Some(frame)) = whole(&bytes) {
            assert_eq!(frame, &bytes[4..4 + frame.len()]);
        }
        let _ = Connected::read(&bytes);
        let _ = Incoming::read(&bytes);
        let _ = Answer::read(operation, &Body::Done(&bytes));
    }
}
