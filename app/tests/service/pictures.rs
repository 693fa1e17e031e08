//! Pictures of every format, and what is none.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::Value;

use crate::service::{SAMPLE, Service, error_code};

fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn sample() -> DynamicImage {
    app_pictures::decode(SAMPLE).unwrap().into()
}

#[tokio::test]
async fn every_format_gives_the_same_answer_for_the_same_pixels() {
    let service = Service::ready(&[]).await;
    let (rgb, rgba) = (sample(), DynamicImage::from(sample().to_rgba8()));
    let mut answers = vec![];
    for (picture, format, media_type) in [
        (&rgb, ImageFormat::Png, "image/png"),
        (&rgba, ImageFormat::Png, "image/png"),
        (&rgb, ImageFormat::Bmp, "image/bmp"),
        (&rgb, ImageFormat::Tiff, "image/tiff"),
        (&rgb, ImageFormat::WebP, "image/webp"),
    ] {
        let response = service.post_raw(media_type, encode(picture, format)).await;
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["success"], true, "{format:?}: {body}");
        answers.push(body["predictions"].clone());
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
}

#[tokio::test]
async fn odd_sizes_are_classified() {
    let service = Service::ready(&[]).await;
    for (width, height) in [(1, 1), (1, 8192), (8192, 1), (3000, 7), (224, 224), (256, 256), (255, 257)] {
        let picture = DynamicImage::from(RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([(x % 256) as u8, (y % 256) as u8, ((x + y) % 256) as u8])
        }));
        let response = service.post_raw("image/png", encode(&picture, ImageFormat::Png)).await;
        assert_eq!(response.status(), 200, "{width}x{height}");
    }
}

#[tokio::test]
async fn what_would_fill_the_memory_is_refused_by_its_header() {
    let service = Service::ready(&[]).await;
    // A BMP header alone: 54 bytes that promise gigabytes.
    let bmp = |width: i32, height: i32| {
        let mut bytes = b"BM".to_vec();
        bytes.extend([0u8; 8]);
        bytes.extend(54u32.to_le_bytes());
        bytes.extend(40u32.to_le_bytes());
        bytes.extend(width.to_le_bytes());
        bytes.extend(height.to_le_bytes());
        bytes.extend([1, 0, 24, 0]);
        bytes.extend([0u8; 24]);
        bytes
    };
    for (width, height) in [(30_000, 30_000), (8193, 1), (8192, 8192), (0, 10)] {
        let response = service.post_raw("image/bmp", bmp(width, height)).await;
        assert_eq!(error_code(response).await, (422, "PREPROCESSING_FAILED".into()), "{width}x{height}");
    }
}

#[tokio::test]
async fn half_a_picture_is_refused() {
    let service = Service::ready(&[]).await;
    let png = encode(&sample(), ImageFormat::Png);
    for (media_type, file) in [("image/jpeg", SAMPLE.to_vec()), ("image/png", png)] {
        for part in [file.len() / 2, file.len() * 9 / 10] {
            let response = service.post_raw(media_type, file[..part].to_vec()).await;
            assert_eq!(
                error_code(response).await,
                (422, "PREPROCESSING_FAILED".into()),
                "{media_type} {part}"
            );
        }
    }
}

#[tokio::test]
async fn a_png_whose_end_is_missing_is_the_picture_that_it_is() {
    let service = Service::ready(&[]).await;
    let png = encode(&sample(), ImageFormat::Png);
    let whole: Value = service.post_raw("image/png", png.clone()).await.json().await.unwrap();
    // Within the last chunk, before it, and within the checksum of the pixels.
    for cut in [1, 4, 11, 12, 14] {
        let response = service.post_raw("image/png", png[..png.len() - cut].to_vec()).await;
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["predictions"], whole["predictions"], "{cut} bytes cut: {body}");
    }
}

#[tokio::test]
async fn a_palette_that_ends_within_a_colour_is_refused() {
    let service = Service::ready(&[]).await;
    let response = service.post_raw("image/png", odd_palette()).await;
    assert_eq!(error_code(response).await, (422, "PREPROCESSING_FAILED".into()));
    assert!(service.log().iter().all(|line| line["level"] != "ERROR"), "{:#?}", service.log());
}

/// One pixel of a palette of five bytes.
fn odd_palette() -> Vec<u8> {
    let chunks: [(&[u8], u32); 4] = [
        (b"\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x03\0\0\0", 0x28cb_34bb),
        (b"\0\0\0\x05PLTEabcde", 0x21c3_fb79),
        (b"\0\0\0\x0aIDAT\x78\x9c\x63\x60\x00\x00\x00\x02\x00\x01", 0x48af_a471),
        (b"\0\0\0\0IEND", 0xae42_6082),
    ];
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (chunk, checksum) in chunks {
        file.extend(chunk);
        file.extend(checksum.to_be_bytes());
    }
    file
}
