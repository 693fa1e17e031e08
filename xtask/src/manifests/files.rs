//! A folder of manifests as `kubectl apply -f FOLDER` reads it: which files, which documents in them, which objects in
//! those.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use super::Object;
use super::yaml::{self, Lines, plain_numbers};
use crate::failure::Attach as _;

/// As kubectl has them; the case counts.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];
/// Lists within lists are a mistake; kubectl knows none either.
const LIST_OF: &str = "List";

/// What was read: the objects in the order of the files, and what is odd about them.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) objects: Vec<Object>,
    pub(super) warnings: Vec<String>,
}

/// Reads a folder; its sub-folders are passed over.
///
/// # Errors
/// Naming file and line.
pub(super) fn read(folder: &Path) -> Result<Read> {
    let mut read = Read::default();
    for file in files(folder)? {
        let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.file_name().unwrap_or_default();
        let shown = folder.file_name().map_or_else(|| file.clone(), |folder| Path::new(folder).join(name));
        let (text, is_clean) = decode(&bytes);
        if !is_clean {
            read.warnings.push(format!(
                "{}: bytes that are not UTF-8 were replaced; save the file as UTF-8",
                shown.display()
            ));
        }
        read.take(&shown, &text)?;
    }
    Ok(read)
}

pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let listing = std::fs::read_dir(folder)
        .with_context(|| format!("reading the manifests in {}", folder.display()))
        .hint("the manifests live in `kubernetes/` at the top of the repository")?;
    let mut files = Vec::new();
    for entry in listing {
        let entry = entry.with_context(|| format!("listing {}", folder.display()))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // While a file is edited, Emacs keeps a link of this name beside it, which leads nowhere.
        if name.starts_with(".#") {
            continue;
        }
        let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_owned());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_folder && extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Text, by its byte order mark or as UTF-8; and whether all of it was text.
fn decode(bytes: &[u8]) -> (String, bool) {
    let utf_16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let half = u16::try_from(u32::from(char::REPLACEMENT_CHARACTER)).unwrap_or_default();
        let units = bytes.chunks(2).map(|pair| <[u8; 2]>::try_from(pair).map_or(half, unit));
        let text: String =
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        let is_clean = !text.contains(char::REPLACEMENT_CHARACTER);
        (text, is_clean)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => match String::from_utf8_lossy(rest) {
            std::borrow::Cow::Borrowed(text) => (text.to_owned(), true),
            std::borrow::Cow::Owned(text) => (text, false),
        },
    }
}

impl Read {
    /// The objects of one file.
    fn take(&mut self, file: &Path, text: &str) -> Result<()> {
        if text.trim_start().starts_with('{') {
            return self.take_json(file, text);
        }
        for (line, document) in documents(file, text)? {
            let document = yaml::read(document, line).map_err(|bad| {
                let column = bad.column.map(|column| format!(":{column}")).unwrap_or_default();
                let fix = if text.contains('\0') {
                    "this looks like UTF-16 without a byte order mark: save the file as UTF-8"
                } else {
                    "fix the line or its indentation, and run again"
                };
                anyhow!("{}:{}{column}: this is not valid YAML: {}", file.display(), bad.line, bad.why)
                    .hint(fix)
            })?;
            for (line, words) in document.warnings {
                self.warnings.push(format!("{}:{line}: {words}", file.display()));
            }
            self.add(file, document.value, document.lines)?;
        }
        Ok(())
    }

    /// What begins with a brace is JSON to kubectl, one object behind the other.
    fn take_json(&mut self, file: &Path, text: &str) -> Result<()> {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let mut begins = 0;
        while let Some(value) = values.next() {
            let mut value = value.map_err(|error| {
                let place = format!("{}:{}:{}", file.display(), error.line(), error.column());
                let why = error.to_string();
                let why = why.split(" at line ").next().unwrap_or(&why).to_owned();
                anyhow!("{place}: this is not valid JSON: {why}").hint(
                    "a file that begins with `{` is read as JSON, as kubectl does; in YAML, begin it \
                           with `---`",
                )
            })?;
            plain_numbers(&mut value);
            let ends = values.byte_offset();
            let (before, document) =
                (text.get(..begins).unwrap_or_default(), text.get(begins..ends).unwrap_or_default());
            let lines = yaml::lines(document, before.matches('\n').count() + 1);
            begins = ends;
            self.add(file, value, lines)?;
        }
        Ok(())
    }

    /// The object that a document holds, or the objects of a list.
    fn add(&mut self, file: &Path, value: Value, lines: Lines) -> Result<()> {
        if value.is_null() {
            return Ok(());
        }
        let lines = Arc::new(lines);
        let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).map(str::to_owned);
        let kind = text(&value, "kind").unwrap_or_default();
        let Some(items) = value.get("items").and_then(Value::as_array) else {
            if kind == LIST_OF {
                return Err(anyhow!("{}:{}: this list has no `items`", file.display(), lines.of("/items")))
                    .hint("write `items: []` for an empty list");
            }
            self.objects.push(object(file, value, &lines)?);
            return Ok(());
        };
        for (index, item) in items.iter().enumerate() {
            let pointer = format!("/items/{index}");
            let lines = Arc::new(lines.within(&pointer));
            let mut item = item.clone();
            // The items of a `ConfigMapList` need not say what they are.
            if let (Some(fields), Some(of)) = (item.as_object_mut(), kind.strip_suffix(LIST_OF))
                && !of.is_empty()
                && !fields.contains_key("kind")
            {
                fields.insert("kind".to_owned(), of.into());
                fields.insert("apiVersion".to_owned(), text(&value, "apiVersion").unwrap_or_default().into());
            }
            if item.get("items").is_some_and(Value::is_array) {
                return Err(anyhow!("{}:{}: this is a list within a list", file.display(), lines.of("")))
                    .hint("write its items into the outer list");
            }
            self.objects.push(object(file, item, &lines)?);
        }
        Ok(())
    }
}

/// The documents of a stream and the lines that they begin on, split where kubectl splits: at each line that begins
/// with `---`, whatever it is inside of.
fn documents<'t>(file: &Path, text: &'t str) -> Result<Vec<(usize, &'t str)>> {
    let mut documents = Vec::new();
    let (mut begins, mut first_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if let Some(rest) = line.strip_prefix("---") {
            let rest = rest.trim();
            if !rest.is_empty() && !rest.starts_with('#') {
                return Err(anyhow!("{}:{}: `{rest}` follows `---` on its line", file.display(), index + 1))
                    .hint("`---` separates documents, and nothing but a comment may follow it on its line");
            }
            documents.push((first_line, text.get(begins..at).unwrap_or_default()));
            (begins, first_line) = (at, index + 1);
        }
        at += line.len();
    }
    documents.push((first_line, text.get(begins..).unwrap_or_default()));
    Ok(documents)
}

fn object(file: &Path, value: Value, lines: &Arc<Lines>) -> Result<Object> {
    let place = |pointer: &str| format!("{}:{}", file.display(), lines.of(pointer));
    if !value.is_object() {
        return Err(anyhow!("{}: this is not a Kubernetes object", place("")))
            .hint("every Kubernetes object needs apiVersion, kind and metadata.name");
    }
    let need = |pointer: &str| {
        let what = pointer[1..].replace('/', ".");
        match value.pointer(pointer) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            None | Some(Value::Null | Value::String(_)) => {
                Err(anyhow!("{}: this object has no `{what}`", place(pointer)))
                    .hint("every Kubernetes object needs apiVersion, kind and metadata.name")
            }
            Some(other) => Err(anyhow!("{}: `{what}` is {other}, which is not a string", place(pointer)))
                .hint(format!("quote it: \"{other}\"")),
        }
    };
    Ok(Object {
        file: file.to_owned(),
        line: lines.of(""),
        api_version: need("/apiVersion")?,
        kind: need("/kind")?,
        name: need("/metadata/name")?,
        value,
        lines: Arc::clone(lines),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::paragraph;

    fn take(text: &str) -> Result<Read> {
        let mut read = Read::default();
        read.take(Path::new("k/x.yaml"), text).map(|()| read)
    }

    fn places(text: &str) -> Vec<String> {
        let read = take(text).unwrap_or_else(|error| panic!("{}\n{text}", paragraph(&error)));
        read.objects.iter().map(|object| format!("{} {}", object.place(), object.title())).collect()
    }

    fn refusal(text: &str) -> String {
        paragraph(&take(text).expect_err(text))
    }

    const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";

    #[test]
    fn documents_begin_where_their_content_does() {
        assert_eq!(places(MAP), ["k/x.yaml:1 configmap/a"]);
        assert_eq!(places(&format!("# about\n---\n{MAP}")), ["k/x.yaml:3 configmap/a"]);
        assert_eq!(
            places(&format!("--- # one\n\n# more\n{MAP}---\n---\nnull\n---\n# no more\n")),
            ["k/x.yaml:4 configmap/a"]
        );
        let windows = format!("{MAP}---\n{MAP}").replace('\n', "\r\n");
        assert_eq!(places(&windows), ["k/x.yaml:1 configmap/a", "k/x.yaml:5 configmap/a"]);
        assert!(
            refusal(&format!("{MAP}--- {{a: 1}}\n"))
                .starts_with("k/x.yaml:4: `{a: 1}` follows `---` on its line")
        );
        let words = "---\n# only words\n---\n# and again\n---\nkind: Service\nmetadata:\n  name: broken\n";
        assert_eq!(refusal(words), "k/x.yaml:6: this object has no `apiVersion`");
        assert_eq!(take(&format!("{MAP}...\nnonsense: [\n")).expect("the first").warnings.len(), 1);
    }

    #[test]
    fn json_is_taken_with_its_lines() {
        let json = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"n":3.0}"#;
        assert_eq!(
            places(&format!("\n{json}\n{json}\n")),
            ["k/x.yaml:2 configmap/a", "k/x.yaml:3 configmap/a"]
        );
        assert_eq!(take(json).expect("json").objects[0].value["n"].to_string(), "3");
        assert!(
            refusal("{\"a\": 1,\n}").starts_with("k/x.yaml:2:1: this is not valid JSON: "),
            "{}",
            refusal("{\"a\": 1,\n}")
        );
        assert!(refusal("{a: 1}").contains("this is not valid JSON"));
        assert_eq!(places(&format!("# yaml\n{json}\n")), ["k/x.yaml:2 configmap/a"]);
    }

    #[test]
    fn a_list_is_its_items() {
        let list = "apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: ConfigMap\n    \
                    metadata:\n      name: a\n";
        assert_eq!(places(list), ["k/x.yaml:4 configmap/a"]);
        let maps =
            "apiVersion: v1\nkind: ConfigMapList\nitems:\n- {metadata: {name: a}}\n- {metadata: {name: b}}\n";
        assert_eq!(places(maps), ["k/x.yaml:4 configmap/a", "k/x.yaml:5 configmap/b"]);
        assert_eq!(places("apiVersion: v1\nkind: List\nitems: []\n"), [""; 0]);
        assert_eq!(refusal("apiVersion: v1\nkind: List\nitems:\n"), "k/x.yaml:3: this list has no `items`");
        let nested = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List, items: []}\n";
        assert_eq!(refusal(nested), "k/x.yaml:4: this is a list within a list");
    }

    #[test]
    fn what_is_no_object_is_refused_at_its_line() {
        assert_eq!(refusal("---\n- a\n"), "k/x.yaml:2: this is not a Kubernetes object");
        assert_eq!(
            refusal("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: 123\n"),
            "k/x.yaml:4: `metadata.name` is 123, which is not a string"
        );
        assert_eq!(
            refusal("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  labels: {}\n"),
            "k/x.yaml:3: this object has no `metadata.name`"
        );
    }

    #[test]
    fn a_file_is_text_in_any_of_the_usual_encodings() {
        let utf_16 = |mark: [u8; 2], unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            mark.into_iter().chain("ä: 1".encode_utf16().flat_map(unit)).collect()
        };
        let texts = [
            "ä: 1".as_bytes().to_vec(),
            [b"\xef\xbb\xbf", "ä: 1".as_bytes()].concat(),
            utf_16([0xff, 0xfe], u16::to_le_bytes),
            utf_16([0xfe, 0xff], u16::to_be_bytes),
        ];
        for bytes in texts {
            assert_eq!(decode(&bytes), ("ä: 1".to_owned(), true));
        }
        assert!(!decode(b"\xe4: 1").1);
        assert!(!decode(b"\xff\xfea").1);
    }

    #[test]
    fn kubectls_files_are_read_and_no_others() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("sub.yaml")).expect("a folder");
        for name in
            ["b.yml", ".yaml", ".hidden.yaml", "A.json", "UP.YAML", "c.yaml.bak", "d.yaml~", "notes.txt"]
        {
            std::fs::write(at(name), "").expect("a file");
        }
        let names: Vec<_> = files(folder.path())
            .expect("a listing")
            .into_iter()
            .map(|file| file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default())
            .collect();
        assert_eq!(names, [".hidden.yaml", ".yaml", "A.json", "b.yml"]);
        std::os::unix::fs::symlink("nowhere", at("z.yaml")).expect("a link");
        let error = read(folder.path()).expect_err("a link to nowhere");
        assert!(paragraph(&error).contains("z.yaml"), "{}", paragraph(&error));
    }
}
