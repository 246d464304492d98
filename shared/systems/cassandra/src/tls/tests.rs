use std::{
    net::{TcpListener, TcpStream},
    thread,
};

use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    hash::MessageDigest,
    pkey::{PKey, Private},
    rsa::Rsa,
    ssl::{Ssl, SslAcceptor},
    x509::{
        X509, X509Builder, X509NameBuilder,
        extension::{BasicConstraints, SubjectAlternativeName},
    },
};

use super::*;

type Signed = (X509, PKey<Private>);

/// A certificate with these names, signed by `ca` or by itself.
fn certificate(names: &[&str], ca: Option<&Signed>) -> Signed {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", if ca.is_some() { "a node" } else { "a CA" }).unwrap();
    let name = name.build();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(ca.map_or(&*name, |(ca, _)| ca.subject_name())).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder.set_pubkey(&key).unwrap();
    if ca.is_none() {
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    }
    if !names.is_empty() {
        let mut alternative = SubjectAlternativeName::new();
        names.iter().for_each(|name| {
            alternative.dns(name);
        });
        let extension = alternative.build(&builder.x509v3_context(ca.map(|(ca, _)| &**ca), None)).unwrap();
        builder.append_extension(extension).unwrap();
    }
    builder.sign(ca.map_or(&key, |(_, key)| key), MessageDigest::sha256()).unwrap();
    (builder.build(), key)
}

/// Does the driver's way of connecting accept the server's certificate? It checks the address, as `Ssl` is told here.
fn is_accepted(server: &Signed, ca: &X509, hosts: &[&str]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, ca.to_pem().unwrap()).unwrap();
    let tls = Tls { ca_file: Some(path.display().to_string()) };
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
    let context = builder(&tls, hosts).unwrap().build().into_context();

    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_certificate(&server.0).unwrap();
    acceptor.set_private_key(&server.1).unwrap();
    let (acceptor, listener) = (acceptor.build(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let node = thread::spawn(move || drop(acceptor.accept(listener.accept().unwrap().0)));
    let mut ssl = Ssl::new(&context).unwrap();
    ssl.param_mut().set_ip(address.ip()).unwrap();
    let connected = ssl.connect(TcpStream::connect(address).unwrap()).is_ok();
    node.join().unwrap();
    connected
}

#[test]
fn a_certificate_for_the_contact_points_name_is_accepted_and_no_other() {
    let ca = certificate(&[], None);
    let node = certificate(&["cassandra.eu-west-1.amazonaws.com"], Some(&ca));
    let host = "cassandra.eu-west-1.amazonaws.com";
    assert!(is_accepted(&node, &ca.0, &[host]));
    assert!(is_accepted(&node, &ca.0, &["else.example", "Cassandra.EU-west-1.amazonaws.com"]));
    assert!(!is_accepted(&node, &ca.0, &["cassandra.us-east-1.amazonaws.com"]), "another host's");
    assert!(!is_accepted(&node, &ca.0, &["127.0.0.1"]), "it has no address");
    let other = certificate(&[], None);
    assert!(!is_accepted(&node, &other.0, &[host]), "the name makes up for the address, and not for the CA");
    let own = certificate(&[host], None);
    assert!(!is_accepted(&own, &ca.0, &[host]), "signed by itself");
}

#[test]
fn a_star_stands_for_one_label() {
    let ca = certificate(&[], None);
    let (leaf, _) = certificate(&["*.cassandra.cosmos.azure.com", "*.com"], Some(&ca));
    assert!(is_for(&leaf, "mine.cassandra.cosmos.azure.com"));
    for host in ["a.b.cassandra.cosmos.azure.com", "cassandra.cosmos.azure.com", ".cassandra.cosmos.azure.com", "x.com"]
    {
        assert!(!is_for(&leaf, host), "{host}");
    }
}
