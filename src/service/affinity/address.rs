//! An address in a fixed width, so that a length tells nothing of it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// IPv6, or IPv4 as a part of it (RFC 4291 §2.5.5.2), and a port.
pub(super) const WIDTH: usize = 18;

pub(super) fn bytes(address: SocketAddr) -> [u8; WIDTH] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; WIDTH];
    let all = ip.octets().into_iter().chain(address.port().to_be_bytes());
    bytes.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    bytes
}

pub(super) fn read(bytes: [u8; WIDTH]) -> SocketAddr {
    let [ip @ .., high, low] = bytes;
    let ip = Ipv6Addr::from(ip);
    let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
    SocketAddr::new(ip, u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(four: [u8; 4], six: [u8; 16], port: u16) {
            let six = IpAddr::from(six).to_canonical();
            for address in [SocketAddr::new(four.into(), port), SocketAddr::new(six, port)] {
                prop_assert_eq!(read(bytes(address)), address);
            }
        }
    }
}
