//! The end of a PNG file, which some writers leave out and Pillow does not miss.

use std::borrow::Cow;

const SIGNATURE_BYTES: usize = 8;
/// Length, type and checksum.
const CHUNK_FRAME_BYTES: usize = 12;

/// In the first chunk.
const COLOUR_TYPE_AT: usize = 25;
const INDEXED: u8 = 3;

/// Why a file is refused before it is decoded.
#[derive(Debug, PartialEq)]
pub(crate) struct BadPalette;

/// `file` as it is if it is whole or broken in its middle. Where it ends before its last chunk, or within its pixels,
/// the end is added: Pillow stops at the last row and asks for no more, while our decoder wants to see what follows.
/// Pixels that are missing are missed all the same.
///
/// # Errors
/// A palette that ends within a colour, on which our decoder panics.
pub(crate) fn with_its_end(file: &[u8]) -> Result<Cow<'_, [u8]>, BadPalette> {
    let (mut at, mut pixels_seen) = (SIGNATURE_BYTES, false);
    let cut_pixels = loop {
        let Some((length, kind)) = chunk_head(file, at) else { break None };
        if kind == b"PLTE" && length % 3 != 0 && file.get(COLOUR_TYPE_AT) == Some(&INDEXED) {
            return Err(BadPalette);
        }
        let end = at.saturating_add(CHUNK_FRAME_BYTES).saturating_add(length);
        if end > file.len() {
            let data = file.get(at + 8..).unwrap_or_default();
            break (kind == b"IDAT").then(|| &data[..data.len().min(length)]);
        }
        // Without pixels there is nothing to be saved, and after the last chunk nothing is read.
        if kind == b"IEND" {
            return Ok(Cow::Borrowed(file));
        }
        pixels_seen |= kind == b"IDAT";
        at = end;
    };
    if cut_pixels.is_none() && !pixels_seen {
        return Ok(Cow::Borrowed(file));
    }
    let mut whole = file[..at].to_vec();
    if let Some(data) = cut_pixels {
        append_chunk(&mut whole, *b"IDAT", data);
    }
    append_chunk(&mut whole, *b"IEND", &[]);
    Ok(Cow::Owned(whole))
}

fn chunk_head(file: &[u8], at: usize) -> Option<(usize, &[u8])> {
    let (length, kind) = file.get(at..at.checked_add(8)?)?.split_at(4);
    Some((u32::from_be_bytes(length.try_into().ok()?) as usize, kind))
}

fn append_chunk(file: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&kind);
    checksum.update(data);
    file.extend((data.len() as u32).to_be_bytes());
    file.extend(kind);
    file.extend(data);
    file.extend(checksum.finalize().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(vec![]);
        image::RgbImage::new(3, 2).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn a_whole_file_is_left_alone() {
        let mut file = picture();
        assert!(matches!(with_its_end(&file), Ok(Cow::Borrowed(_))));
        file.extend(b"what follows the end");
        assert!(matches!(with_its_end(&file), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn a_last_chunk_that_is_cut_or_missing_is_added() {
        let file = picture();
        for cut in 1..=12 {
            assert_eq!(with_its_end(&file[..file.len() - cut]).unwrap(), file, "{cut} bytes cut");
        }
        // Within the checksum of the pixels.
        assert_eq!(with_its_end(&file[..file.len() - 14]).unwrap(), file);
    }

    #[test]
    fn what_has_no_pixels_or_no_chunks_is_left_alone() {
        let file = picture();
        for length in 0..=SIGNATURE_BYTES + CHUNK_FRAME_BYTES + 13 {
            assert_eq!(*with_its_end(&file[..length]).unwrap(), file[..length], "{length} bytes");
        }
        let endless = [&file[..33], &[0xff; 8]].concat();
        assert_eq!(with_its_end(&endless).unwrap(), endless);
    }

    #[test]
    fn a_palette_that_ends_within_a_colour_is_refused() {
        let mut file = [&picture()[..33], b"\0\0\0\x05PLTEabcde\0\0\0\0"].concat();
        // Where each pixel has its own colour, the palette is a suggestion.
        assert!(with_its_end(&file).is_ok());
        file[COLOUR_TYPE_AT] = INDEXED;
        assert_eq!(with_its_end(&file), Err(BadPalette));
    }
}
