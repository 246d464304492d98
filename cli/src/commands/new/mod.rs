use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use millstream_assembly::tables_of_given;
use millstream_core::Error;
use serde_json::json;

use crate::{
    Failure,
    args::NewArgs,
    context::{Context, quoted},
    grid::printable,
    infer::Guess,
    numbers::counted,
};

mod guessed;

/// `millstream new FOLDER [--from FILE]`: a pipeline that runs at once, as a start.
pub(super) async fn new(context: &Context, args: &NewArgs) -> Result<(), Failure> {
    let name = name_of(&args.folder)?;
    // The guess comes first: if the file can't be read, no folder is created.
    let guess = args.from.as_deref().map(|file| Guess::of_file(file).map(|guess| (file, guess))).transpose()?;
    make_folder(&args.folder)?;
    let made = match &guess {
        None => example(&args.folder, &name),
        Some((file, guess)) => from_guess(&args.folder, &name, file, guess).await,
    };
    if let Err(failure) = made {
        // The folder was created just now, so it holds nothing else.
        let _ = fs::remove_dir_all(&args.folder);
        return Err(failure);
    }
    let told = guess.as_ref().map_or_else(Vec::new, |(file, guess)| told(file, guess));
    let folder = quoted(&args.folder.to_string_lossy());
    let mut next = vec![format!("millstream dev {folder}"), format!("millstream test {folder}")];
    if let Some((file, _)) = &guess {
        let path = quoted(&file.to_string_lossy());
        next.insert(0, format!("millstream produce {} {path} -p {folder}", guessed::topic_of(file)));
    }
    if context.json {
        return context.say_json(
            &json!({ "name": name, "folder": args.folder.display().to_string(), "guessed": told, "next": next }),
        );
    }
    let place = printable(&args.folder.to_string_lossy());
    context.say(format!("made {place}/pipeline.yaml, and a test in {place}/fixtures"))?;
    told.iter().try_for_each(|line| context.say(line))?;
    next.iter().try_for_each(|line| context.say(format!("  {line}")))
}

/// The pipeline's name: the folder's, reduced to the letters that names may have.
fn name_of(folder: &Path) -> Result<String, Failure> {
    let last = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = identifier(last);
    if name.is_empty() || name.len() > 50 {
        Err(Failure::Usage(format!(
            "the pipeline can't be named after `{}`: the last part of the folder must have a letter, and at most 50 \
             letters",
            folder.display()
        )))
    } else {
        Ok(name)
    }
}

/// Lower-case letters, digits and underscores; empty if there is no letter.
fn identifier(text: &str) -> String {
    let letter = |letter: char| match letter.to_ascii_lowercase() {
        letter if letter.is_ascii_lowercase() || letter.is_ascii_digit() => letter,
        _ => '_',
    };
    let name: String = text.chars().map(letter).collect();
    let name = name.trim_start_matches(|first: char| first.is_ascii_digit() || first == '_').trim_end_matches('_');
    name.to_owned()
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    let place = folder.display();
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|error| unwritable(parent, error))?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::Usage(format!("{place} already exists, and nothing was changed: name a new folder")))
        }
        made => made.map_err(|error| unwritable(folder, error)),
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> Failure {
    Failure::System(Error::stop(format!("{} can't be written", path.display())).caused_by(error))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(|error| unwritable(parent, error))?;
    fs::write(&path, text).map_err(|error| unwritable(&path, error))
}

fn example(folder: &Path, name: &str) -> Result<(), Failure> {
    let place = folder.display().to_string();
    let pipeline = include_str!("pipeline.yaml").replace("name: NAME", &format!("name: {}", guessed::yaml(name)));
    write(folder, "pipeline.yaml", &pipeline.replace("FOLDER", &place))?;
    write(folder, "fixtures/orders.jsonl", include_str!("orders.jsonl"))?;
    write(folder, "fixtures/sales.csv", include_str!("sales.csv"))
}

/// The expected rows are the pipeline's current result for the file's first records: the test fails if that changes.
async fn from_guess(folder: &Path, name: &str, file: &Path, guess: &Guess) -> Result<(), Failure> {
    let written = guessed::write_pipeline(name, file, guess);
    let given = PathBuf::from(&written.given);
    write(folder, &written.given, &guess.fixture)?;
    write(folder, &written.expected, "")?;
    write(folder, "pipeline.yaml", &written.pipeline)?;
    let pipeline = millstream_assembly::load(folder).map_err(Failure::Pipeline)?;
    let given = BTreeMap::from([(guessed::topic_of(file), given)]);
    let tables = tables_of_given(&pipeline, &given).await.map_err(|error| {
        // The fixture, which is removed again, has the same lines as the file.
        let (fixture, file) = (folder.join(&written.given).display().to_string(), file.display().to_string());
        Failure::Usage(format!(
            "no pipeline can be guessed from {file}: {}",
            error.to_string().replace(&fixture, &file)
        ))
    })?;
    tables.values().try_for_each(|rows| write(folder, &written.expected, rows))
}

fn told(file: &Path, guess: &Guess) -> Vec<String> {
    let mut lines = vec![format!(
        "the schema is guessed from {} of {}; check it, above all `not null` and the digits of decimals",
        counted(guess.records as u64, "record"),
        printable(&file.to_string_lossy())
    )];
    lines.push(match guess.event_time() {
        Some(field) => format!("event time: `{}`", printable(&field.name)),
        None => "event time: the log's own timestamp, since no field is a time in every record".to_owned(),
    });
    lines.extend(guess.left_out.iter().map(|left_out| format!("left out: {left_out}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_the_pipeline_its_name() {
        for (folder, name) in [("shop", "shop"), ("a/My-Shop 2", "my_shop_2"), ("2026_sales/", "sales")] {
            assert_eq!(name_of(Path::new(folder)).unwrap(), name);
        }
        for folder in ["..", "", "42", "über/-"] {
            assert!(name_of(Path::new(folder)).is_err(), "{folder}");
        }
    }
}
