//! JPEG, by the decoder that `image` has it from too: called here, it is compiled here, with the rest of what computes.

use image::{DynamicImage, GrayImage, RgbImage};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// A file whose header has been read.
pub(crate) struct Jpeg<'a>(JpegDecoder<ZCursor<&'a [u8]>>);

impl<'a> Jpeg<'a> {
    pub(crate) fn open(file: &'a [u8]) -> Result<Jpeg<'a>, DecodeErrors> {
        // How large it may be is judged by the caller.
        let options = DecoderOptions::default()
            .set_strict_mode(false)
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
        decoder.decode_headers()?;
        Ok(Jpeg(decoder))
    }

    /// Width and height in pixels.
    pub(crate) fn dimensions(&self) -> (u32, u32) {
        self.0.info().map_or((0, 0), |info| (u32::from(info.width), u32::from(info.height)))
    }

    /// Grey as it is, all else as RGB, the colours of printers too.
    pub(crate) fn decode(mut self) -> Result<DynamicImage, DecodeErrors> {
        let (width, height) = self.dimensions();
        let is_grey = self.0.input_colorspace() == Some(ColorSpace::Luma);
        let wanted = if is_grey { ColorSpace::Luma } else { ColorSpace::RGB };
        self.0.set_options(self.0.options().jpeg_set_out_colorspace(wanted));
        let samples = self.0.decode()?;
        let picture = if is_grey {
            GrayImage::from_raw(width, height, samples).map(DynamicImage::from)
        } else {
            RgbImage::from_raw(width, height, samples).map(DynamicImage::from)
        };
        picture.ok_or(DecodeErrors::FormatStatic("fewer samples than pixels"))
    }
}

/// Whether an end-of-image marker follows the first scan (of the picture itself: an EXIF thumbnail's lies in a segment
/// before it). In a scan's data 0xFF is always followed by 0 or a restart marker, so the marker can't occur by chance.
pub(crate) fn is_whole(file: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];
    let mut rest = file.get(2..).unwrap_or_default();
    loop {
        rest = match rest {
            [0xff, START_OF_SCAN, scan @ ..] => return scan.windows(2).any(|pair| pair == END_OF_IMAGE),
            // Any number of 0xFF may precede a marker.
            [0xff, 0xff, ..] => &rest[1..],
            [0xff, _, high, low, ..] => {
                rest.get(2 + usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default()
            }
            // Not where a marker should be: the decoder has the better words for it.
            [_, ..] => return true,
            [] => return false,
        };
    }
}
