//! The header of a form's field: what it is called, and what its file was called where it came from.

use percent_encoding::percent_decode_str;

/// `Content-Disposition: form-data; name="…"; filename="…"; filename*=…`
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Disposition {
    pub(crate) name: Option<String>,
    /// `filename*` where it can be read, else `filename`.
    pub(crate) filename: Option<String>,
}

impl Disposition {
    /// Reads what it can; the first parameter of a name counts. Text that is not UTF-8 is Latin-1, as HTTP's was.
    pub(crate) fn parse(header: &[u8]) -> Disposition {
        let text = match std::str::from_utf8(header) {
            Ok(text) => text.to_owned(),
            Err(_) => latin_1(header),
        };
        let mut disposition = Disposition::default();
        let mut extended = None;
        let mut rest = text.split_once(';').map_or("", |(_, parameters)| parameters);
        while let Some((name, after)) = rest.split_once('=') {
            let (value, after) = value(after);
            // What had no value stands before the last semicolon.
            let name = name.rsplit(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            match name.as_str() {
                "name" if disposition.name.is_none() => disposition.name = Some(value),
                "filename" if disposition.filename.is_none() => disposition.filename = Some(value),
                "filename*" if extended.is_none() => extended = extended_value(&value),
                _ => {}
            }
            rest = after;
        }
        disposition.filename = extended.or(disposition.filename);
        disposition
    }
}

/// The value that `text` begins with, and what follows it. In a quoted one `\"` is a quote and `\\` a backslash; before
/// anything else a backslash is itself, as browsers send the paths of Windows.
fn value(text: &str) -> (String, &str) {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim_end().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.push(
                characters.next_if(|(_, next)| matches!(next, '"' | '\\')).map_or('\\', |(_, next)| next),
            ),
            _ => value.push(character),
        }
    }
    (value, "")
}

/// RFC 8187: `UTF-8'en'na%C3%AFve.jpg`. The RFC before it, 5987, had ISO-8859-1 too.
fn extended_value(text: &str) -> Option<String> {
    let mut parts = text.splitn(3, '\'');
    let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(latin_1(&bytes)),
        _ => None,
    }
}

fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_clients_write_them() {
        for (header, name, filename) in [
            (r#"form-data; name="file"; filename="cat.jpg""#, "file", Some("cat.jpg")),
            (r#"form-data;name=file;filename=my cat.jpg"#, "file", Some("my cat.jpg")),
            (r#"form-data; Name = "file" ; FileName = "cat.jpg" "#, "file", Some("cat.jpg")),
            (r#"form-data; filename="a; name=b.jpg"; name="file""#, "file", Some("a; name=b.jpg")),
            (r#"form-data; name="file"; filename="a\"b\\c.jpg""#, "file", Some(r#"a"b\c.jpg"#)),
            (r#"form-data; name="file"; filename="C:\cats\x.jpg""#, "file", Some(r"C:\cats\x.jpg")),
            (r#"form-data; name="file"; filename="naïve.jpg""#, "file", Some("naïve.jpg")),
            (r#"form-data; name="file"; filename="""#, "file", Some("")),
            (r#"form-data; name="file"; filename="open"#, "file", Some("open")),
            (r#"form-data; name="file"; flag; filename="cat.jpg""#, "file", Some("cat.jpg")),
            (r#"form-data; name="file""#, "file", None),
            // RFC 8187's own example, and what follows from the two forms side by side.
            ("form-data; name=file; filename*=UTF-8''%e2%82%ac%20rates", "file", Some("€ rates")),
            ("form-data; name=file; filename*=utf-8'de'na%C3%AFve.jpg", "file", Some("naïve.jpg")),
            ("form-data; name=file; filename*=iso-8859-1''na%EFve.jpg", "file", Some("naïve.jpg")),
            (
                r#"form-data; name="file"; filename="E.jpg"; filename*=UTF-8''%E2%82%AC.jpg"#,
                "file",
                Some("€.jpg"),
            ),
            (
                r#"form-data; filename*=UTF-8''%E2%82%AC.jpg; filename="E.jpg"; name=file"#,
                "file",
                Some("€.jpg"),
            ),
            (r#"form-data; name=file; filename*="UTF-8''%E2%82%AC.jpg""#, "file", Some("€.jpg")),
            // What can't be read leaves the plain name.
            (r#"form-data; name=file; filename="E.jpg"; filename*=UTF-8''%FF.jpg"#, "file", Some("E.jpg")),
            (r#"form-data; name=file; filename="E.jpg"; filename*=UTF-7''x"#, "file", Some("E.jpg")),
            (r#"form-data; name=file; filename="E.jpg"; filename*=x.jpg"#, "file", Some("E.jpg")),
        ] {
            let expected = Disposition { name: Some(name.into()), filename: filename.map(Into::into) };
            assert_eq!(Disposition::parse(header.as_bytes()), expected, "{header}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_latin_1() {
        let disposition = Disposition::parse(b"form-data; name=\"file\"; filename=\"na\xefve.jpg\"");
        assert_eq!(disposition.filename.as_deref(), Some("naïve.jpg"));
    }

    #[test]
    fn what_is_no_disposition_has_no_name() {
        for header in ["", "form-data", ";", "form-data; name", ";=;=\"", "form-data; =x"] {
            assert_eq!(Disposition::parse(header.as_bytes()), Disposition::default(), "{header}");
        }
    }
}
