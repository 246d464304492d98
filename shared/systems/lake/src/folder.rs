use std::{
    fmt,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use millstream_core::{Error, Result};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, local::LocalFileSystem, path::Path,
};

/// Opens a folder, which is created if it is missing.
///
/// # Errors
/// `Stop` when the folder can't be created or opened.
pub(crate) fn open_folder(folder: &FilePath) -> Result<Arc<dyn ObjectStore>> {
    let place = folder.display();
    fs::create_dir_all(folder)
        .map_err(|error| Error::stop(format!("lake: the folder {place} can't be created")).caused_by(error))?;
    let store = LocalFileSystem::new_with_prefix(folder)
        .map_err(|error| Error::stop(format!("lake: the folder {place} can't be opened")).caused_by(error))?;
    Ok(Arc::new(Folder(store)))
}

/// A local folder. A put is atomic, a new file is on the disk when it returns, and a killed put leaves nothing that a reader
/// could take for data.
///
/// [`LocalFileSystem`] stages a file as `name.parquet#1` next to its target. A process that is killed between the link and
/// the removal leaves a whole copy under that name, and readers that are given the folder (Spark, Arrow) count its rows a
/// second time. Here the staged file begins with a dot, which they skip; and it keeps `#1`, which hides it from `list`.
#[derive(Debug)]
struct Folder(LocalFileSystem);

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return self.0.put_opts(location, payload, options).await,
        };
        let path = self.0.path_to_filesystem(location)?;
        let done = tokio::task::spawn_blocking(move || put(&path, &payload, create)).await?;
        done.map_err(|error| store_error(location, error))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.0.copy_opts(from, to, options).await
    }
}

/// Puts a whole file at `path`, or nothing; if `create`, only where there is none.
fn put(path: &FilePath, payload: &PutPayload, create: bool) -> io::Result<()> {
    let folder = path.parent().unwrap_or(FilePath::new("/"));
    let (mut file, staged) = stage(folder, path)?;
    let put = (|| {
        payload.iter().try_for_each(|bytes| file.write_all(bytes))?;
        file.sync_all()?;
        if create { fs::hard_link(&staged, path) } else { fs::rename(&staged, path) }
    })();
    if create || put.is_err() {
        // A file that remains after a failure here is hidden and harmless.
        let _ = fs::remove_file(&staged);
    }
    put?;
    // A replaced object (a fence) may revert to its older state after a power cut: the chain leads on from there.
    if create { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// A new hidden file next to `path`. Names left by killed processes are skipped.
fn stage(folder: &FilePath, path: &FilePath) -> io::Result<(File, PathBuf)> {
    const MAX_STAGED: u32 = 10_000;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for number in 1..=MAX_STAGED {
        let staged = folder.join(format!(".{name}#{number}"));
        match File::create_new(&staged) {
            Ok(file) => return Ok((file, staged)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(folder)?;
                folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("{MAX_STAGED} files .{name}#N were left behind by killed processes: remove them")))
}

fn store_error(location: &Path, error: io::Error) -> object_store::Error {
    let (path, source) = (location.to_string(), Box::new(error));
    match source.kind() {
        ErrorKind::AlreadyExists => object_store::Error::AlreadyExists { path, source },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory => {
            object_store::Error::PermissionDenied { path, source }
        }
        _ => object_store::Error::Generic { store: "folder", source },
    }
}
