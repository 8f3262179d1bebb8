//! What no real server says.

use crate::suite::PATIENCE;
use crate::support::watched::{Watched, lookup};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server that answers everything it is sent by the same bytes. `endless`: and goes on with the last of them.
async fn server(answer: &'static [u8], endless: bool) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut sent = vec![0; 4096];
                let filler = vec![*answer.last().unwrap_or(&0); 64 << 10];
                while client.read(&mut sent).await.is_ok_and(|read| read > 0) {
                    if answer.is_empty() || client.write_all(answer).await.is_err() {
                        return;
                    }
                    while endless && client.write_all(&filler).await.is_ok() {}
                }
            });
        }
    });
    (address, task)
}

#[tokio::test]
async fn is_told_as_a_problem_and_nothing_else() {
    for (answer, endless) in [
        (b"".as_slice(), false),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
        (b"+OK\r\n", false),
        (b"_\r\n", false),
        (b":1\r\n", false),
        (b"-ERR \xff\r\n", false),
        (b"-\r\n", false),
        (b"$-7\r\n", false),
        (b"%1\r\n", false),
        (b"*2147483647\r\n", false),
        (b"*9223372036854775807\r\n", false),
        (b"%9223372036854775807\r\n", false),
        (b"|9223372036854775807\r\n", false),
        (b"$9223372036854775807\r\n", true),
        (b"+x", true),
        (b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", false),
        (b">2\r\n+invalidate\r\n_\r\n", false),
        (b">1\r\n:1\r\n", false),
        (b"*2\r\n$1\r\n0\r\n*1\r\n$18\r\nservices:users:1:1\r\n>0\r\n", false),
        (b"*2\r\n$1\r\n7\r\n*1\r\n$18\r\nservices:users:1:1\r\n", false),
    ] {
        let (address, task) = server(answer, endless).await;
        let table = format!("kind = \"redis\"\naddress = \"redis://{address}\"");
        let mut watched = Watched::start(&table, vec![lookup("users")]);
        let problem = watched.next(PATIENCE).await;
        let shown = String::from_utf8_lossy(answer).escape_debug().to_string();
        println!("  {shown}: {problem:?}");
        assert!(problem.is_err_and(|problem| problem.starts_with(&address.to_string())), "{shown}");
        task.abort();
    }
}

#[tokio::test]
async fn a_sentinel_that_is_none_is_told() {
    for answer in
        [b"+OK\r\n".as_slice(), b"*1\r\n$1\r\na\r\n", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n", b"*2\r\n$0\r\n\r\n$1\r\n1\r\n"]
    {
        let (address, _task) = server(answer, false).await;
        let table = format!("kind = \"redis\"\naddress = \"{address}\"\nsentinel = \"main\"");
        let problem = Watched::start(&table, vec![lookup("users")]).problem(Duration::from_secs(5)).await;
        assert!(problem.contains("no sentinel") || problem.contains("no address"), "{problem}");
    }
}
