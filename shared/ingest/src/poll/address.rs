use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use futures::future::FutureExt as _;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// Which addresses are asked. An address is judged after its name was looked up, and is the one that is connected to, so a
/// name that changes its address gains nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    /// Private networks?
    pub(super) private: bool,
    /// This machine?
    pub(super) loopback: bool,
}

/// An address that is not asked.
#[derive(Debug)]
pub(super) struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host's address is {}", self.0)
    }
}

impl std::error::Error for Refused {}

impl Allowed {
    /// The address may be asked, or why not.
    pub(super) fn check(self, address: IpAddr) -> Result<(), Refused> {
        let refused = match unmapped(address) {
            IpAddr::V4(address) => self.refusal_v4(address),
            IpAddr::V6(address) => self.refusal_v6(address),
        };
        refused.map_or(Ok(()), |why| Err(Refused(why)))
    }

    /// The same for a URL whose host is an address and no name: no name is looked up then.
    pub(super) fn check_url(self, url: &Url) -> Result<(), Refused> {
        address_of(url).map_or(Ok(()), |address| self.check(address))
    }

    fn refusal_v4(self, address: Ipv4Addr) -> Option<&'static str> {
        let [a, b, ..] = address.octets();
        match (a, b) {
            // The metadata of a machine, with the secrets of its role. 168.63.129.16 is Azure's.
            (169, 254) => Some("link-local, which is never asked"),
            _ if address == Ipv4Addr::new(168, 63, 129, 16) => {
                Some("that of Azure's own services, which are never asked")
            }
            _ if address == Ipv4Addr::new(100, 100, 100, 200) => {
                Some("that of a cloud's metadata, which is never asked")
            }
            (192, 0) if address.octets()[2] == 0 => Some("no address of a host"),
            (0 | 224..=255, _) => Some("no address of a host"),
            (127, _) => (!self.loopback).then_some("loopback, which is asked only if the URL names it"),
            (10, _) | (172, 16..=31) | (192, 168) | (100, 64..=127) => {
                (!self.private).then_some("private; `allow_private: true` allows it")
            }
            _ => None,
        }
    }

    fn refusal_v6(self, address: Ipv6Addr) -> Option<&'static str> {
        match address.segments()[0] {
            _ if address.is_loopback() => {
                (!self.loopback).then_some("loopback, which is asked only if the URL names it")
            }
            _ if address.is_unspecified() => Some("no address of a host"),
            // The metadata of AWS, Google and Oracle, and what stands beside it.
            _ if matches!(address.segments()[..2], [0xfd00, 0xec2 | 0xc1] | [0xfd20, 0xce]) => {
                Some("that of a cloud's metadata, which is never asked")
            }
            0xfe80..=0xfeff => Some("link-local, which is never asked"),
            0xff00..=0xffff => Some("no address of a host"),
            0xfc00..=0xfdff => (!self.private).then_some("private; `allow_private: true` allows it"),
            _ => None,
        }
    }
}

/// The IPv4 address inside an IPv6 one: mapped, compatible, or behind a translator (64:ff9b::/96, 2002::/16).
fn unmapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let inside = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0 | 1, 0, 0, 0, high, low] => inside(high, low),
        [0x2002, high, low, ..] => inside(high, low),
        _ => address,
    }
}

/// The address that stands in a URL in place of a name.
fn address_of(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Does the URL itself name this machine?
pub(super) fn names_loopback(url: &Url) -> bool {
    url.host_str() == Some("localhost") || address_of(url).is_some_and(|address| unmapped(address).is_loopback())
}

impl Resolve for Allowed {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = *self;
        async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (mut addresses, mut refused) = (Vec::new(), None);
            for address in found {
                match allowed.check(address.ip()) {
                    Ok(()) => addresses.push(address),
                    Err(why) => refused = Some(why),
                }
            }
            match refused {
                Some(refused) if addresses.is_empty() => Err(refused.into()),
                _ => Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send> as Addrs),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(private: bool, loopback: bool, address: &str) -> bool {
        let allowed = Allowed { private, loopback };
        let of_url = if address.contains(':') { format!("http://[{address}]/") } else { format!("http://{address}/") };
        let checked = allowed.check(address.parse().unwrap()).is_ok();
        assert_eq!(allowed.check_url(&of_url.parse().unwrap()).is_ok(), checked, "{address}");
        checked
    }

    #[test]
    fn metadata_is_never_asked_in_whatever_spelling() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "168.63.129.16",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(!allowed(true, true, address), "{address}");
        }
    }

    #[test]
    fn private_and_loopback_addresses_need_a_word() {
        for address in
            ["10.0.0.1", "172.16.0.1", "172.31.255.1", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.0.0.1"]
        {
            assert!(allowed(true, false, address) && !allowed(false, true, address), "{address}");
        }
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(allowed(false, true, address) && !allowed(true, false, address), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert!(allowed(false, false, address), "{address}");
        }
        let names = |url: &str| names_loopback(&url.parse().unwrap());
        assert!(
            names("http://localhost:1/")
                && names("http://127.0.0.1/")
                && names("http://[::1]/")
                && names("http://0x7f.1/")
        );
        assert!(!names("http://localhost.example/") && !names("http://10.0.0.1/"));
    }
}
