//! What clients send, as they declare it, and the words of a refusal.

use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::multipart::{Form, Part};
use serde_json::Value;

use crate::service::{SAMPLE, Service, error_code};

/// What is declared of pictures, none of it true of a JPEG but the first.
const DECLARED: [&str; 14] = [
    "image/jpeg",
    "image/jpg",
    "image/pjpeg",
    "image/jfif",
    "image/png",
    "image/gif",
    "image/*",
    "*/*",
    "application/octet-stream",
    "binary/octet-stream",
    "application/x-www-form-urlencoded",
    "application/json",
    "text/plain",
    "nonsense",
];

/// A form with one part whose header is written as is, which clients' libraries refuse to send.
async fn post_part(service: &Service, header: &[u8], file: &[u8]) -> Response {
    let body = [b"--b\r\n", header, b"\r\n\r\n", file, b"\r\n--b--\r\n"].concat();
    service.post_raw("multipart/form-data; boundary=b", body).await
}

async fn message(response: Response) -> String {
    let body: Value = response.json().await.unwrap();
    body["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_bytes_say_what_a_picture_is_and_not_what_is_declared() {
    let service = Service::ready(&[]).await;
    let disposition = "Content-Disposition: form-data; name=\"file\"; filename=\"x\"";
    let declared = DECLARED.iter().copied().chain(["multipart/form-data", "multipart/mixed; boundary=b", ""]);
    let parts = declared.map(|declared| format!("{disposition}\r\nContent-Type: {declared}"));
    for header in parts.chain([disposition.to_owned()]) {
        let jpeg = post_part(&service, header.as_bytes(), SAMPLE).await;
        assert_eq!(jpeg.status(), 200, "{header}");
        let text = post_part(&service, header.as_bytes(), b"hello").await;
        assert_eq!(error_code(text).await, (415, "UNSUPPORTED_MEDIA_TYPE".into()), "{header}");
        let nothing = post_part(&service, header.as_bytes(), b"").await;
        assert_eq!(error_code(nothing).await, (400, "EMPTY_FILE".into()), "{header}");
    }
    for declared in DECLARED {
        assert_eq!(service.post_raw(declared, SAMPLE).await.status(), 200, "{declared}");
        let text = service.post_raw(declared, "hello").await;
        assert_eq!(error_code(text).await, (415, "UNSUPPORTED_MEDIA_TYPE".into()), "{declared}");
    }
    let undeclared = service.client.post(service.url("/predict")).body(SAMPLE).send().await.unwrap();
    assert_eq!(undeclared.status(), 200);
}

#[tokio::test]
async fn an_empty_body_is_an_empty_file_where_a_picture_was_declared() {
    let service = Service::ready(&[]).await;
    for (declared, status, code) in [
        ("image/jpeg", 400, "EMPTY_FILE"),
        ("application/octet-stream", 400, "EMPTY_FILE"),
        ("application/json", 415, "UNSUPPORTED_MEDIA_TYPE"),
    ] {
        let response = service.post_raw(declared, "").await;
        assert_eq!(error_code(response).await, (status, code.to_owned()), "{declared}");
    }
}

#[tokio::test]
async fn the_name_of_a_file_may_be_in_any_script() {
    let service = Service::ready(&[]).await;
    for (disposition, filename) in [
        (&b"name=\"file\"; filename=\"cat.jpg\""[..], "cat.jpg"),
        (b"name=\"file\"; filename*=UTF-8''%e2%82%ac%20na%C3%AFve.jpg", "\u{20ac} na\u{ef}ve.jpg"),
        (b"name=\"file\"; filename=\"E.jpg\"; filename*=utf-8'en'%E2%82%AC.jpg", "\u{20ac}.jpg"),
        (b"name=\"file\"; filename*=iso-8859-1''na%EFve.jpg; filename=\"x\"", "na\u{ef}ve.jpg"),
        ("name=\"file\"; filename=\"\u{732b}.jpg\"".as_bytes(), "\u{732b}.jpg"),
        (b"name=\"file\"; filename=\"na\xefve.jpg\"", "na\u{ef}ve.jpg"),
        (b"filename=\"a; name=b.jpg\"; name=\"file\"", "a; name=b.jpg"),
    ] {
        let header = [b"Content-Disposition: form-data; ", disposition].concat();
        let response = post_part(&service, &header, SAMPLE).await;
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["meta"]["filename"], filename, "{}", String::from_utf8_lossy(disposition));
    }
    // As a library sends it that takes the name of the header from its user.
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-unknown"));
    let form = Form::new().part("file", Part::bytes(SAMPLE).file_name("caf\u{e9}.jpg").headers(headers));
    let body: Value = service.post_form("/predict", form).await.json().await.unwrap();
    assert_eq!(body["meta"]["filename"], "caf\u{e9}.jpg");
}

#[tokio::test]
async fn a_refusal_tells_the_limit() {
    let service = Service::ready(&[]).await;
    let huge = vec![0xff; 10 * 1024 * 1024 + 1];
    let form = Form::new().part("file", Part::bytes(huge.clone()).file_name("x"));
    for response in [service.post_form("/predict", form).await, service.post_raw("image/jpeg", huge).await] {
        assert_eq!(message(response).await, "the file is larger than 10 MB");
    }
    // Headers alone, each of its own decoder: the size is in the first bytes.
    for (name, file) in too_large() {
        let refusal = message(service.post_raw("image/*", file).await).await;
        let limit = "is too large: at most 8192 a side and 25 million in all";
        assert!(refusal.contains("30000x20000") && refusal.contains(limit), "{name}: {refusal}");
    }
    let refusal = message(service.post_raw("application/json", "{}").await).await;
    let expected = "application/json is not accepted: send multipart/form-data with a field named file, or \
                    one of \
                    image/jpeg, image/png, image/bmp, image/tiff, image/webp";
    assert_eq!(refusal, expected);
    let refusal = message(service.post_form("/predict?top_k=11", Form::new()).await).await;
    assert_eq!(refusal, "top_k must be one number from 1 to 10");
}

/// Pictures of 30000 x 20000 pixels, or what is enough of them to say so.
fn too_large() -> [(&'static str, Vec<u8>); 4] {
    const WIDTH: u32 = 30_000;
    const HEIGHT: u32 = 20_000;
    let mut bmp = b"BM".to_vec();
    bmp.extend([0; 8]);
    for number in [54, 40, WIDTH, HEIGHT] {
        bmp.extend(number.to_le_bytes());
    }
    bmp.extend([1, 0, 24, 0]);
    bmp.extend([0; 24]);

    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend(WIDTH.to_be_bytes());
    png.extend(HEIGHT.to_be_bytes());
    png.extend([8, 2, 0, 0, 0]);
    // The checksum of those.
    png.extend(0x40f7_9cde_u32.to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");

    let sof = SAMPLE.windows(2).position(|pair| pair[0] == 0xff && matches!(pair[1], 0xc0 | 0xc2)).unwrap();
    let mut jpeg = SAMPLE.to_vec();
    jpeg[sof + 5..sof + 7].copy_from_slice(&(HEIGHT as u16).to_be_bytes());
    jpeg[sof + 7..sof + 9].copy_from_slice(&(WIDTH as u16).to_be_bytes());

    let mut tiff = b"II*\0\x08\0\0\0".to_vec();
    let entries: [(u16, u32); 9] = [
        (256, WIDTH),
        (257, HEIGHT),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, HEIGHT),
        (279, 9),
    ];
    tiff.extend((entries.len() as u16).to_le_bytes());
    for (tag, value) in entries {
        tiff.extend(tag.to_le_bytes());
        tiff.extend(4u16.to_le_bytes());
        tiff.extend(1u32.to_le_bytes());
        tiff.extend(value.to_le_bytes());
    }
    tiff.extend([0; 4]);
    [("BMP", bmp), ("PNG", png), ("JPEG", jpeg), ("TIFF", tiff)]
}
