use std::path::PathBuf;

use millstream_core::{Error, Result};
use object_store::path::Path;

use crate::store::ADDRESS;

/// Where a lake is, as its address says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A folder of this machine.
    Folder(PathBuf),
    /// The keys beneath `prefix` in a bucket of S3, or of a store that speaks its protocol.
    S3 { bucket: String, prefix: Path },
    /// The blobs beneath `prefix` in a container of Azure Blob Storage or ADLS Gen2.
    Azure { container: String, account: Option<Account>, prefix: Path },
}

/// A storage account that the address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub name: String,
    /// Where its blobs are.
    pub endpoint: String,
}

impl Place {
    /// Reads an address. No error shows what follows its scheme: that may hold a secret.
    pub(crate) fn parse(address: &str) -> Result<Self> {
        let Some((scheme, rest)) = address.split_once("://") else { return Ok(Self::Folder(address.into())) };
        match scheme {
            "file" => folder(rest).map(Self::Folder),
            "s3" | "s3a" => {
                let (bucket, prefix) = bucket_and_prefix(scheme, rest)?;
                check_name(scheme, "bucket", bucket)?;
                Ok(Self::S3 { bucket: bucket.to_owned(), prefix })
            }
            "az" | "abfs" | "abfss" => azure(scheme, rest),
            _ => Err(wrong(&format!(
                "begins with `{scheme}://`; a lake is a folder (file:///PATH), s3://BUCKET/PREFIX or az://CONTAINER/PREFIX"
            ))),
        }
    }

    /// The key that all others are beneath; empty for the top.
    pub(crate) fn root(&self) -> Path {
        match self {
            Self::Folder(_) => Path::default(),
            Self::S3 { prefix, .. } | Self::Azure { prefix, .. } => prefix.clone(),
        }
    }

    /// What to call the folder, bucket or container in front of a person.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            Self::S3 { bucket, .. } => format!("s3://{bucket}"),
            Self::Azure { container, account: Some(account), .. } => format!("az://{container}@{}", account.name),
            Self::Azure { container, account: None, .. } => format!("az://{container}"),
        }
    }
}

fn wrong(what: &str) -> Error {
    Error::stop(format!("{} {what}", ADDRESS.variable))
}

fn folder(path: &str) -> Result<PathBuf> {
    if !path.starts_with('/') {
        return Err(wrong("begins with `file://` and is not absolute: write file:///PATH"));
    }
    let path = Path::from_url_path(path).map_err(|_| wrong("begins with `file://`, and the rest is not a path"))?;
    Ok(PathBuf::from(format!("/{path}")))
}

fn bucket_and_prefix<'a>(scheme: &str, rest: &'a str) -> Result<(&'a str, Path)> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = Some(prefix).filter(|prefix| !prefix.contains(['?', '#']));
    match prefix.and_then(|prefix| Path::parse(prefix).ok()) {
        Some(prefix) => Ok((bucket, prefix)),
        None => Err(wrong(&format!(
            "begins with `{scheme}://`, and what follows the first name is not a path: write {scheme}://NAME/PREFIX, with \
             letters, digits, `-`, `_`, `.`, `=` and `/` in the prefix"
        ))),
    }
}

/// `container@account.dfs.core.windows.net/prefix`, or `container/prefix` with the account among the variables.
fn azure(scheme: &str, rest: &str) -> Result<Place> {
    let (authority, prefix) = bucket_and_prefix(scheme, rest)?;
    let (container, host) =
        authority.split_once('@').map_or((authority, None), |(container, host)| (container, Some(host)));
    check_name(scheme, "container", container)?;
    let account = host.map(|host| {
        account_at(host).ok_or_else(|| {
            wrong(&format!("begins with `{scheme}://`, and what follows the @ is not ACCOUNT.dfs.core.windows.net"))
        })
    });
    Ok(Place::Azure { container: container.to_owned(), account: account.transpose()?, prefix })
}

/// The account of a host such as `account.dfs.core.windows.net`, in whichever of Azure's clouds.
fn account_at(host: &str) -> Option<Account> {
    let (name, service) = host.split_once('.')?;
    let cloud = service.strip_prefix("dfs.").or_else(|| service.strip_prefix("blob."))?;
    let is_host = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    let endpoint = format!("https://{name}.blob.{cloud}");
    (is_host(name) && is_host(cloud)).then(|| Account { name: name.to_owned(), endpoint })
}

fn check_name(scheme: &str, what: &str, name: &str) -> Result<()> {
    if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.$".contains(c)) {
        return Ok(());
    }
    Err(wrong(&format!(
        "begins with `{scheme}://`, and no name of a {what} follows: write {scheme}://{}/PREFIX. Credentials don't go there, \
         but into the cloud's own variables",
        what.to_uppercase()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str) -> Result<Place, String> {
        Place::parse(address).map_err(|error| error.to_string())
    }

    #[test]
    fn a_lake_is_a_folder_a_bucket_or_a_container() {
        let (folder, path) = (|path: &str| Ok(Place::Folder(path.into())), |path: &str| Path::parse(path).unwrap());
        assert_eq!(parse("data/lake"), folder("data/lake"));
        assert_eq!(parse("file:///data/a%20lake"), folder("/data/a lake"));
        let s3 = |bucket: &str, prefix| Ok(Place::S3 { bucket: bucket.to_owned(), prefix: path(prefix) });
        assert_eq!(parse("s3://bucket"), s3("bucket", ""));
        assert_eq!(parse("s3://my.bucket-1/a/b=c/"), s3("my.bucket-1", "a/b=c"));
        let azure = |account, prefix| Ok(Place::Azure { container: "box".to_owned(), account, prefix: path(prefix) });
        assert_eq!(parse("az://box/a"), azure(None, "a"));
        let at = |name: &str, endpoint: &str| Some(Account { name: name.to_owned(), endpoint: endpoint.to_owned() });
        let (public, china) = ("https://acct.blob.core.windows.net", "https://acct.blob.core.chinacloudapi.cn");
        assert_eq!(parse("abfss://box@acct.dfs.core.windows.net/a/b"), azure(at("acct", public), "a/b"));
        assert_eq!(parse("abfss://box@acct.blob.core.chinacloudapi.cn"), azure(at("acct", china), ""));
        assert_eq!(parse("abfss://box@acct.dfs.core.windows.net/a").unwrap().name(), "az://box@acct");
        assert_eq!(parse("s3://bucket/a/b").unwrap().root().as_ref(), "a/b");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_address() {
        for (address, said) in [
            ("gs://secret/x", "begins with `gs://`; a lake is a folder"),
            ("file://secret", "is not absolute"),
            ("s3://", "no name of a bucket follows"),
            ("s3:///secret", "no name of a bucket follows"),
            ("s3://key:secret@bucket/x", "Credentials don't go there"),
            ("s3://bucket/x?sig=secret", "is not a path"),
            ("s3://bucket/../secret", "is not a path"),
            ("az://box:secret@acct.dfs.core.windows.net/x", "no name of a container follows"),
            ("abfss://box@secret/x", "is not ACCOUNT.dfs.core.windows.net"),
            ("abfss://box@acct.dfs.core.windows.net:secret/x", "is not ACCOUNT.dfs.core.windows.net"),
        ] {
            let told = parse(address).unwrap_err();
            assert!(told.starts_with("MILLSTREAM_LAKE_URL ") && told.contains(said), "{address}: {told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
