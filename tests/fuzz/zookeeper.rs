//! What a ZooKeeper says: it is refused, or it is read within its frame.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wayside::discovery::registry::zookeeper::message::{Answer, Body, Connected, Incoming, Operation};
use wayside::discovery::registry::zookeeper::whole;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(frame)) = whole(bytes) else { return };
    assert!(bytes[4..].starts_with(frame));
    if let Ok(connected) = Connected::read(frame) {
        assert!(connected.password.len() <= frame.len());
    }
    let Ok(Incoming::Answer(_, Body::Done(body))) = Incoming::read(frame) else { return };
    for operation in [Operation::Create, Operation::Exists, Operation::Get, Operation::Set, Operation::Children] {
        match Answer::read(operation, &Body::Done(body)) {
            Ok(Answer::Data(data)) => assert!(data.len() <= body.len()),
            // Each name has a length before it.
            Ok(Answer::Children(names)) => {
                assert!(names.iter().map(|name| name.len() + 4).sum::<usize>() <= body.len());
            }
            _ => {}
        }
    }
});
