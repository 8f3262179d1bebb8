use super::*;
use hickory_resolver::proto::rr::rdata::{A, AAAA};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Record {
    Record::from_rdata(name("_http._tcp.test."), 60, RData::SRV(SRV::new(priority, weight, port, name(target))))
}

#[test]
fn targets_come_by_priority_and_the_root_is_none() {
    let records = [srv(20, 1, 1, "a."), srv(10, 1, 2, "b."), srv(10, 2, 3, "a."), srv(0, 0, 0, ".")];
    let ports = |targets: Vec<&SRV>| targets.iter().map(|srv| srv.port).collect::<Vec<_>>();
    let groups: Vec<_> = by_priority(&records).into_iter().map(|(at, targets)| (at, ports(targets))).collect();
    assert_eq!(groups, [(10, vec![2, 3]), (20, vec![1])]);
}

#[test]
fn a_target_is_an_endpoint_for_each_of_its_addresses() {
    let four = Record::from_rdata(name("a."), 7, RData::A(A::new(10, 0, 0, 7)));
    let six = Record::from_rdata(name("A."), 5, RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1)));
    let records = [four, six, srv(1, 1, 1, "a.")];
    let hosts = added(&records, Family::Both);
    assert_eq!(added(&records, Family::Ipv4)[&name("a.")].ttl, 7);
    assert_eq!(hosts[&name("a.")].ttl, 5);
    let records = [srv(10, 7, 80, "a."), srv(10, 0, 81, "a."), srv(10, 1, 0, "a."), srv(10, 1, 1, "b.")];
    let targets = by_priority(&records).remove(&10).unwrap();
    let observed = listed(targets.iter().flat_map(|srv| entries(srv, hosts.get(&srv.target))));
    let seen: Vec<_> = observed.endpoints.iter().map(|entry| (entry.address.to_string(), entry.weight)).collect();
    let addresses = ["10.0.0.7:80", "10.0.0.7:81", "[::1]:80", "[::1]:81"].map(str::to_owned);
    assert_eq!(seen, addresses.into_iter().zip([7, 1, 7, 1]).collect::<Vec<_>>());
    let metadata = &observed.endpoints[0].metadata;
    assert_eq!(
        (metadata["priority"].as_str(), metadata["target"].as_str(), metadata["weight"].as_str()),
        ("10", "a.", "7")
    );
    assert_eq!(observed.skipped, 3);
    let left_out: Vec<_> = observed.left_out.iter().map(|left| (left.entry.as_str(), left.reason.as_str())).collect();
    assert!(left_out.contains(&("a. (10.0.0.7, port 0)", "port 0")), "{left_out:?}");
    assert!(left_out.contains(&("b. (port 1)", "the target has no address")), "{left_out:?}");
}
