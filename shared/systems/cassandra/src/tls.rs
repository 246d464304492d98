//! Encrypted connections by OpenSSL.

use millstream_core::{Error, Result};
use openssl::{
    ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVerifyMode},
    x509::{X509Ref, X509StoreContextRef, X509VerifyResult, store::X509StoreBuilder},
};

use crate::settings::{CA_FILE, Tls};

/// X509_V_ERR_IP_ADDRESS_MISMATCH.
const ADDRESS_MISMATCH: i32 = 64;

/// What makes encrypted connections to nodes whose certificate is for their address, or for one of `hosts`.
///
/// The driver checks certificates against the address that it has connected to. Certificates of the cloud services have the
/// names of their endpoints instead, behind which are many addresses; this one check is made up for by the name.
pub(crate) fn builder(tls: &Tls, hosts: Vec<String>) -> Result<SslConnectorBuilder> {
    let internal = |error| Error::stop("internal: OpenSSL can't be set up").caused_by(error);
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(internal)?;
    // The system's certificates are in it already, and would be trusted beside the named ones.
    builder.set_cert_store(X509StoreBuilder::new().map_err(internal)?.build());
    if let Some(path) = &tls.ca_file {
        builder.set_ca_file(path).map_err(|error| {
            Error::stop(format!("{CA_FILE}: {path} is not a file of PEM certificates")).caused_by(error)
        })?;
    } else {
        // OpenSSL is built in and does not know this system: the probe looks where systems keep their certificates.
        let found = openssl_probe::probe();
        let folder = found.cert_dir.first().map(|folder| folder.as_path());
        builder.load_verify_locations(found.cert_file.as_deref(), folder).map_err(|error| {
            Error::stop(format!(
                "the system has no CA certificates; install ca-certificates, or name a file by {CA_FILE}"
            ))
            .caused_by(error)
        })?;
    }
    builder.set_verify_callback(SslVerifyMode::PEER, move |is_valid, chain| is_valid || forgive_address(chain, &hosts));
    Ok(builder)
}

/// Is all that is wrong with the chain so far that the server's own certificate doesn't have its address, but one of `hosts`?
fn forgive_address(chain: &mut X509StoreContextRef, hosts: &[String]) -> bool {
    let is_forgiven = chain.error().as_raw() == ADDRESS_MISMATCH
        && chain.error_depth() == 0
        && chain.current_cert().is_some_and(|leaf| hosts.iter().any(|host| is_for(leaf, host)));
    if is_forgiven {
        chain.set_error(X509VerifyResult::OK);
    }
    is_forgiven
}

/// Is the certificate for this name? A `*` stands for the first label (RFC 9525).
fn is_for(certificate: &X509Ref, host: &str) -> bool {
    let Some(names) = certificate.subject_alt_names() else { return false };
    let matches = |name: &str| match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(label, rest)| {
            !label.is_empty() && domain.contains('.') && rest.eq_ignore_ascii_case(domain)
        }),
        None => name.eq_ignore_ascii_case(host),
    };
    names.iter().filter_map(|name| name.dnsname()).any(matches)
}

#[cfg(test)]
mod tests;
