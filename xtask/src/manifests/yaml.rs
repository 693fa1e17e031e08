//! One YAML document as kubectl reads it: `serde_yaml` reads, and two things stand beside it. Plain scalars mean what
//! YAML 1.1 makes of them (`0444` is a mode, `no` is false), so those that mean something else are rewritten before
//! they are read; and the line of each field is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde::de::{
    self, Deserialize, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess as _, Visitor,
};
use serde_json::{Map, Number, Value};

/// The line of each field, by its JSON pointer.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// The line of a field; of the nearest field around it that is written there, where itself is not.
    pub(super) fn of(&self, pointer: &str) -> usize {
        let mut pointer = pointer;
        loop {
            if let Some(line) = self.0.get(pointer) {
                return *line;
            }
            match pointer.rsplit_once('/') {
                Some((around, _)) => pointer = around,
                None => return 1,
            }
        }
    }

    /// The lines of what is at `pointer`, as if it stood alone.
    pub(super) fn within(&self, pointer: &str) -> Lines {
        let inside =
            self.0.iter().filter_map(|(key, line)| Some((key.strip_prefix(pointer)?.to_owned(), *line)));
        Lines(inside.filter(|(key, _)| key.is_empty() || key.starts_with('/')).collect())
    }
}

/// A document, and what its reader should be told.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) value: Value,
    pub(super) lines: Lines,
    /// Odd but not wrong: line and words.
    pub(super) warnings: Vec<(usize, String)>,
}

/// Why a text is no document.
#[derive(Debug, PartialEq)]
pub(super) struct Bad {
    pub(super) line: usize,
    pub(super) column: Option<usize>,
    pub(super) why: String,
}

/// Reads the first document of `text`, which begins on `first_line` of its file; all after it is passed over, as
/// kubectl does.
///
/// # Errors
/// Where `text` is no YAML, or holds what JSON can't.
pub(super) fn read(text: &str, first_line: usize) -> Result<Document, Bad> {
    let offset = first_line - 1;
    let scanned = scan(text, offset);
    let rewritten =
        scanned.as_ref().map_or_else(|_| text.to_owned(), |scanned| rewrite(text, &scanned.edits));
    let mut documents = serde_yaml::Deserializer::from_str(&rewritten);
    let node = documents.next().map_or_else(|| Ok(Node(Value::Null)), Node::deserialize);
    let value = match node {
        Ok(Node(value)) => value,
        Err(error) => {
            let at = error.location();
            let line = at.as_ref().map_or(first_line, |at| at.line() + offset);
            // Its own place counts from the document's beginning.
            let why = error.to_string();
            let why = why.split(" at line ").next().unwrap_or(&why).to_owned();
            return Err(Bad { line, column: at.map(|at| at.column()), why });
        }
    };
    let Scanned { lines, warnings, .. } = scanned?;
    Ok(Document { value, lines, warnings })
}

/// The lines of a JSON text, which is YAML too; none where it is not.
pub(super) fn lines(text: &str, first_line: usize) -> Lines {
    scan(text, first_line - 1).map(|scanned| scanned.lines).unwrap_or_default()
}

#[derive(Default)]
struct Scanned {
    lines: Lines,
    edits: Vec<(Range<usize>, String)>,
    warnings: Vec<(usize, String)>,
}

/// A mapping or sequence that the scan is inside of.
enum Around {
    /// The pointer, and the key whose value comes next.
    Mapping(String, Option<String>),
    /// The pointer, and the index of the next item.
    Sequence(String, usize),
}

fn scan(text: &str, offset: usize) -> Result<Scanned, Bad> {
    let mut scanned = Scanned::default();
    let mut around: Vec<Around> = Vec::new();
    let mut ended = false;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| Bad {
            line: error.marker().line() + offset,
            column: Some(error.marker().col() + 1),
            why: error.info(),
        })?;
        if ended && !matches!(event, Event::StreamEnd | Event::Comment(..)) {
            let line = span.start.line() + offset;
            scanned.warnings.push((line, "everything after `...` is ignored".to_owned()));
            break;
        }
        match event {
            Event::DocumentEnd => ended = true,
            Event::Scalar(value, style, _, tag) => {
                let mut word = value.into_owned();
                if style == ScalarStyle::Plain && tag.is_none() && !word.is_empty() {
                    let edit = core_schema(&word).map_err(|why| Bad {
                        line: span.start.line() + offset,
                        column: Some(span.start.col() + 1),
                        why,
                    })?;
                    if let (Some(edit), Some(range)) = (edit, span.byte_range()) {
                        word.clone_from(&edit);
                        scanned.edits.push((range, edit));
                    }
                }
                if !is_key(&mut around, &word, span, offset, &mut scanned) {
                    let pointer = value_at(&mut around);
                    note(&mut scanned.lines, pointer, span, offset);
                }
            }
            Event::Alias(_) => {
                let pointer = value_at(&mut around);
                note(&mut scanned.lines, pointer, span, offset);
            }
            Event::MappingStart(..) => {
                let pointer = value_at(&mut around);
                note(&mut scanned.lines, pointer.clone(), span, offset);
                around.push(Around::Mapping(pointer, None));
            }
            Event::SequenceStart(..) => {
                let pointer = value_at(&mut around);
                note(&mut scanned.lines, pointer.clone(), span, offset);
                around.push(Around::Sequence(pointer, 0));
            }
            Event::MappingEnd | Event::SequenceEnd => {
                around.pop();
            }
            _ => {}
        }
    }
    Ok(scanned)
}

/// Takes a scalar as the key of the mapping around it, where one is due.
fn is_key(around: &mut [Around], word: &str, span: Span, offset: usize, scanned: &mut Scanned) -> bool {
    let Some(Around::Mapping(pointer, key @ None)) = around.last_mut() else { return false };
    let line = span.start.line() + offset;
    let field = format!("{pointer}/{}", escape(word));
    if let Some(before) = scanned.lines.0.insert(field, line).filter(|_| word != "<<") {
        let words = format!("`{word}` is set here and on line {before}; the last one wins");
        scanned.warnings.push((line, words));
    }
    *key = Some(word.to_owned());
    true
}

/// The pointer of the value that comes now.
fn value_at(around: &mut [Around]) -> String {
    match around.last_mut() {
        None => String::new(),
        Some(Around::Mapping(pointer, key)) => {
            format!("{pointer}/{}", escape(&key.take().unwrap_or_default()))
        }
        Some(Around::Sequence(pointer, index)) => {
            *index += 1;
            format!("{pointer}/{}", *index - 1)
        }
    }
}

fn note(lines: &mut Lines, pointer: String, span: Span, offset: usize) {
    // A field is where its name is.
    lines.0.entry(pointer).or_insert(span.start.line() + offset);
}

/// A field's name as it stands in a JSON pointer.
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn rewrite(text: &str, edits: &[(Range<usize>, String)]) -> String {
    let mut rewritten = String::with_capacity(text.len());
    let mut done = 0;
    for (range, edit) in edits {
        // The scan goes forward, so the edits do.
        rewritten.push_str(text.get(done..range.start).unwrap_or_default());
        rewritten.push_str(edit);
        done = range.end;
    }
    rewritten.push_str(text.get(done..).unwrap_or_default());
    rewritten
}

/// How a plain scalar has to be written so that a reader of YAML 1.2 takes it for what a reader of YAML 1.1 (Go's, in
/// kubectl) does; none where both agree.
fn core_schema(word: &str) -> Result<Option<String>, String> {
    let plain = word.replace('_', "");
    let is_number = word.starts_with(|c: char| c.is_ascii_digit() || "+-".contains(c));
    Ok(match word {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some("true".to_owned()),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some("false".to_owned()),
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => None,
        "~" | "null" | "Null" | "NULL" => None,
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf"
        | "-.Inf" | "-.INF" => {
            return Err(format!("`{word}` is not a number in JSON; quote it if it is text"));
        }
        _ if word.starts_with('.') => float(word).map(written),
        _ if is_number => match integer(&plain) {
            Some(number) => Some(number.to_string()),
            None => float(&plain).map(written).or_else(|| Some(quoted(word))),
        },
        _ => None,
    }
    .filter(|edit| edit != word))
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "''"))
}

/// As Go's `strconv.ParseInt` with base 0.
fn integer(word: &str) -> Option<i128> {
    let (sign, digits) = match word.strip_prefix(['+', '-']) {
        Some(digits) if word.starts_with('-') => (-1, digits),
        Some(digits) => (1, digits),
        None => (1, word),
    };
    let (radix, digits) = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some(two) if two.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let number = sign * i128::from_str_radix(digits, radix).ok()?;
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number).then_some(number)
}

/// A decimal float.
fn float(word: &str) -> Option<f64> {
    let is_float = word.contains(|c: char| c.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
    word.parse::<f64>().ok().filter(|number| is_float && number.is_finite())
}

/// A number as Go writes it into JSON: a whole one without a point.
fn written(number: f64) -> String {
    whole(number).map_or_else(|| format!("{number:e}"), |whole| whole.to_string())
}

/// The largest power of ten that Go still writes digit by digit.
const MOST_DIGITS: f64 = 1e21;

fn whole(number: f64) -> Option<i128> {
    // Such a number is exact as an integer.
    #[allow(clippy::cast_possible_truncation)]
    (number.fract() == 0.0 && number.abs() < MOST_DIGITS).then_some(number as i128)
}

/// Whole numbers without a point, wherever they are: kubectl hands them on so.
pub(super) fn plain_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().and_then(whole);
            if let Some(whole) = whole.and_then(|whole| i64::try_from(whole).ok()) {
                *number = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(plain_numbers),
        Value::Object(fields) => fields.values_mut().for_each(plain_numbers),
        _ => {}
    }
}

/// A value as kubectl's reader makes it: of a key that is there twice the last one counts, and a merge key (`<<`) sets
/// what it has at its place among the others. `serde_yaml`'s own `apply_merge` would refuse the first, and lets
/// explicit keys win wherever they stand.
struct Node(Value);

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(NodeVisitor).map(Node)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON knows")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    #[allow(clippy::cast_precision_loss)] // what is that large is a float to kubectl too
    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    #[allow(clippy::cast_precision_loss)]
    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format!("{value} is not a number in JSON")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut value = Vec::new();
        while let Some(Node(item)) = items.next_element()? {
            value.push(item);
        }
        Ok(value.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut value = Map::new();
        while let Some((Node(name), Node(field))) = fields.next_entry()? {
            let name = match name {
                Value::String(name) if name == "<<" => {
                    merge(&mut value, field).map_err(de::Error::custom)?;
                    continue;
                }
                Value::String(name) => name,
                Value::Bool(_) | Value::Number(_) => name.to_string(),
                _ => return Err(de::Error::custom("a field's name must be a word or a number")),
            };
            value.insert(name, field);
        }
        Ok(value.into())
    }

    /// A tag of somebody's own says nothing to kubectl.
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Value, A::Error> {
        let (_tag, content) = tagged.variant::<String>()?;
        content.newtype_variant::<Node>().map(|Node(value)| value)
    }
}

fn merge(into: &mut Map<String, Value>, from: Value) -> Result<(), &'static str> {
    match from {
        Value::Object(fields) => into.extend(fields),
        Value::Array(items) => {
            // The first of several has the last word.
            for item in items.into_iter().rev() {
                let Value::Object(fields) = item else { return Err(NO_MERGE) };
                into.extend(fields);
            }
        }
        _ => return Err(NO_MERGE),
    }
    Ok(())
}

const NO_MERGE: &str = "a merge key (`<<`) takes a mapping, or a sequence of mappings";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        read(text, 1).unwrap_or_else(|bad| panic!("{bad:?}\n{text}")).value
    }

    /// Each as Go's reader answers; asked of kubectl itself in `tests/it/declared_reading.rs`.
    #[test]
    fn plain_scalars_are_those_of_yaml_1_1() {
        let cases = [
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("y", json!(true)),
            ("oN", json!("oN")),
            ("0444", json!(292)),
            ("0888", json!(888)),
            ("0o17", json!(15)),
            ("-0b11", json!(-3)),
            ("0x1F", json!(31)),
            ("0x", json!("0x")),
            ("1_000", json!(1000)),
            ("_1", json!("_1")),
            ("3.0", json!(3)),
            ("1e3", json!(1000)),
            ("1e400", json!("1e400")),
            (".5", json!(0.5)),
            ("-.5e-3", json!(-0.0005)),
            ("+5", json!(5)),
            ("12:30:45", json!("12:30:45")),
            ("2024-01-01", json!("2024-01-01")),
            ("1.2.3", json!("1.2.3")),
            ("-", json!([null])),
            ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
            ("~", json!(null)),
            ("\"yes\"", json!("yes")),
            ("'0444'", json!("0444")),
            ("!!str 0444", json!("0444")),
            ("!theirs word", json!("word")),
            ("|-\n    no", json!("no")),
        ];
        for (text, wanted) in cases {
            assert_eq!(value(&format!("a:\n  {text}\n"))["a"], wanted, "{text}");
        }
        assert_eq!(
            value("{yes: 1, 0x10: 2, 1.5: 3, <<: {a: 4}}"),
            json!({"true": 1, "16": 2, "1.5": 3, "a": 4})
        );
        assert_eq!(value("a: &x no\nb: *x\n"), json!({"a": false, "b": false}));
    }

    #[test]
    fn what_json_has_no_word_for_is_refused_at_its_place() {
        let bad = |text: &str| read(text, 11).unwrap_err();
        assert_eq!((bad("a: 1\nb: .inf\n").line, bad("a: 1\nb: .inf\n").column), (12, Some(4)));
        assert_eq!(bad("a: 1\n~: 2\n").line, 11);
        assert_eq!(bad("a: 1\n  b: 2\n").line, 12);
        assert!(bad("a: 1\n<<: 3\n").why.contains("merge key"));
        assert!(bad("a: *nobody\n").why.contains("anchor"), "{:?}", bad("a: *nobody\n"));
    }

    #[test]
    fn merge_keys_set_fields_where_they_stand() {
        let text = "x: &x {a: x, b: x}\nz: &z {a: z, c: z}\n";
        assert_eq!(value(&format!("{text}m:\n  <<: *x\n  a: own\n"))["m"], json!({"a": "own", "b": "x"}));
        assert_eq!(value(&format!("{text}m:\n  a: own\n  <<: *x\n"))["m"], json!({"a": "x", "b": "x"}));
        let both = value(&format!("{text}m:\n  <<: [*x, *z]\n"));
        assert_eq!(both["m"], json!({"a": "x", "b": "x", "c": "z"}));
        let chained = value(&format!("{text}v: &v {{<<: *x, d: v}}\nm: {{<<: *v}}\n"));
        assert_eq!(chained["m"], json!({"a": "x", "b": "x", "d": "v"}));
    }

    #[test]
    fn each_field_has_its_line_and_a_second_one_is_told() {
        let text = "a:\n  b: 1\n  c:\n    - x: 1\n      y/z: 2\n    -\n      x: 3\n  b: 2\n";
        let document = read(text, 101).expect("a document");
        let line = |pointer: &str| document.lines.of(pointer);
        assert_eq!(
            ["", "/a", "/a/c", "/a/c/0", "/a/c/0/y~1z", "/a/c/1/x"].map(line),
            [101, 101, 103, 104, 105, 107]
        );
        assert_eq!(line("/a/c/1/x/deeper/0"), 107, "the nearest around it");
        assert_eq!(document.lines.within("/a/c").of("/0/x"), 104);
        assert_eq!(document.value["a"]["b"], 2);
        assert_eq!(
            document.warnings,
            [(108, "`b` is set here and on line 102; the last one wins".to_owned())]
        );
    }

    #[test]
    fn a_deep_document_is_an_error_and_no_crash() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep, 1).is_err());
        let bomb = "a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c \
                    [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: \
                    [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
        assert!(read(bomb, 1).is_err());
    }
}
