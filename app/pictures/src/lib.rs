//! Picture to tensor, as torchvision's preset does it with Pillow.
//!
//! A crate of its own because it computes: it alone of the service is worth the optimiser's time.

mod jpeg;
mod png;

use std::borrow::Cow;
use std::io::Cursor;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer, ImageDecoder as _, ImageFormat, ImageReader, Limits, Pixel};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::jpeg::Jpeg;

/// Longest side of a picture accepted.
pub const MAX_SIDE_PX: u32 = 8192;
/// Most pixels of a picture accepted.
pub const MAX_PIXELS: u64 = 25_000_000;
/// The formats accepted, as media types.
pub const MEDIA_TYPES: [&str; 5] = ["image/jpeg", "image/png", "image/bmp", "image/tiff", "image/webp"];
/// The same in words.
pub const FORMATS: &str = "JPEG, PNG, BMP, TIFF or WEBP";
/// What a decoder may allocate: the largest picture accepted, at 16 bits in four channels, and as much working space.
const MAX_DECODER_BYTES: u64 = MAX_PIXELS * 8 * 2;

/// How a picture becomes the tensor that the weights were trained for; the names are torchvision's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Preset {
    /// Length of the short edge after resizing, in pixels (bilinear, antialiased).
    pub resize: u32,
    /// Edge of the centre crop, in pixels.
    pub crop: u32,
    /// Subtracted per channel (R, G, B) after scaling to 0..1.
    pub mean: [f32; 3],
    /// Divided by per channel.
    pub std: [f32; 3],
}

/// Why a file could not be prepared.
#[derive(Debug)]
pub enum Error {
    /// Not one of the formats.
    Format(String),
    /// One of them, and broken or too large.
    Picture(String),
}

/// A whole file to the tensor [3, crop, crop] in row-major order, normalised.
///
/// # Errors
/// The same as of [`decode`].
pub fn prepare(file: &[u8], preset: &Preset) -> Result<Vec<f32>, Error> {
    let picture = decode(file)?;
    let pixels = resize_and_crop(&picture, preset)?;
    Ok(normalize(&pixels, preset))
}

/// Whether `file` begins as a picture of one of the formats does.
pub fn is_picture(file: &[u8]) -> bool {
    format(file).is_some()
}

fn format(file: &[u8]) -> Option<ImageFormat> {
    use ImageFormat::{Bmp, Jpeg, Png, Tiff, WebP};
    // With offsets of 64 bits, in either byte order.
    if file.starts_with(b"II+\0") || file.starts_with(b"MM\0+") {
        return Some(Tiff);
    }
    image::guess_format(file).ok().filter(|format| matches!(format, Jpeg | Png | Bmp | Tiff | WebP))
}

/// The picture in 8-bit RGB. Alpha is dropped, EXIF orientation not applied, as torchvision has it. The dimensions are
/// read and judged before anything of their size is allocated.
///
/// # Errors
/// A file that is not of one of the formats, is broken, or has more pixels than are accepted.
pub fn decode(file: &[u8]) -> Result<image::RgbImage, Error> {
    let picture = match format(file) {
        None => return Err(Error::Format(format!("the file is not a {FORMATS} picture"))),
        Some(ImageFormat::Jpeg) => decode_jpeg(file)?,
        Some(format) => decode_other(file, format)?,
    };
    // 8 bits are taken as they are, of 16 the high byte, not rounded: so Pillow makes 8 bits of colour.
    let (low, high) = (|sample: u8| sample, |sample: u16| (sample >> 8) as u8);
    Ok(match picture {
        DynamicImage::ImageRgb8(picture) => picture,
        DynamicImage::ImageLuma8(picture) => rgb(&picture, low),
        DynamicImage::ImageLumaA8(picture) => rgb(&picture, low),
        DynamicImage::ImageRgba8(picture) => rgb(&picture, low),
        DynamicImage::ImageLuma16(picture) => rgb(&picture, high),
        DynamicImage::ImageLumaA16(picture) => rgb(&picture, high),
        DynamicImage::ImageRgb16(picture) => rgb(&picture, high),
        DynamicImage::ImageRgba16(picture) => rgb(&picture, high),
        picture => picture.into_rgb8(),
    })
}

fn decode_jpeg(file: &[u8]) -> Result<DynamicImage, Error> {
    // The decoder would paint the missing part grey, and the answer would be about half a picture.
    if !jpeg::is_whole(file) {
        return Err(broken("the JPEG file ends early"));
    }
    let jpeg = Jpeg::open(file).map_err(broken)?;
    judge(jpeg.dimensions())?;
    jpeg.decode().map_err(broken)
}

fn decode_other(file: &[u8], format: ImageFormat) -> Result<DynamicImage, Error> {
    let file = match format {
        ImageFormat::Png => {
            png::with_its_end(file).map_err(|png::BadPalette| broken("its palette ends within a colour"))?
        }
        _ => Cow::Borrowed(file),
    };
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    // Not the dimensions: they are judged below, in words that tell the limit.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(broken)?;
    judge(decoder.dimensions())?;
    // `from_decoder` does not look at the limits.
    if decoder.total_bytes() > MAX_DECODER_BYTES / 2 {
        return Err(Error::Picture(format!("the picture needs {} bytes decoded", decoder.total_bytes())));
    }
    // Pillow turns a TIFF as its tag says when it loads it; of other formats it leaves that to its caller.
    let orientation = match format {
        ImageFormat::Tiff => decoder.orientation().map_err(broken)?,
        _ => Orientation::NoTransforms,
    };
    let mut picture = DynamicImage::from_decoder(decoder).map_err(broken)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn broken(why: impl std::fmt::Display) -> Error {
    Error::Picture(format!("the picture can't be decoded: {why}"))
}

/// Whether a picture of so many pixels is one, and not too large.
fn judge((width, height): (u32, u32)) -> Result<(), Error> {
    if width == 0 || height == 0 {
        return Err(Error::Picture("the picture has no pixels".into()));
    }
    if width.max(height) > MAX_SIDE_PX || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::Picture(format!(
            "the picture of {width}x{height} pixels is too large: at most {MAX_SIDE_PX} a side and {} \
             million in all",
            MAX_PIXELS / 1_000_000
        )));
    }
    Ok(())
}

/// Colour as it is, grey in all three channels, alpha dropped. Here, since the library's own is compiled with the
/// library, which is not optimised: grey took ten times as long as its decoding.
fn rgb<P: Pixel>(
    picture: &ImageBuffer<P, Vec<P::Subpixel>>,
    byte: impl Fn(P::Subpixel) -> u8,
) -> image::RgbImage {
    let channels = usize::from(P::CHANNEL_COUNT);
    let colour = if channels < 3 { [0; 3] } else { [0, 1, 2] };
    let pixels = picture.as_raw().chunks_exact(channels);
    let bytes = pixels.flat_map(|samples| colour.map(|channel| byte(samples[channel]))).collect();
    image::RgbImage::from_raw(picture.width(), picture.height(), bytes)
        .unwrap_or_else(|| unreachable!("three bytes for each pixel"))
}

/// `Resize(resize, BILINEAR, antialias=True)`, then `CenterCrop(crop)`, in one step: only the rows and columns that
/// survive the crop are computed. Gives crop x crop RGB pixels.
///
/// # Errors
/// A picture without pixels.
pub fn resize_and_crop(picture: &image::RgbImage, preset: &Preset) -> Result<Vec<u8>, Error> {
    let failed =
        |error: &dyn std::fmt::Display| Error::Picture(format!("the picture can't be resized: {error}"));
    let (width, height) = picture.dimensions();
    let (resized_width, resized_height) = resized(width, height, preset.resize);
    let (left, scaled_width) = crop_box(width, resized_width, preset.crop);
    let (top, scaled_height) = crop_box(height, resized_height, preset.crop);
    // Typed, since the other call compiles the resampling of every kind of pixel there is: 50 of the crate's 70
    // seconds.
    let source = TypedImageRef::<U8x3>::from_buffer(width, height, picture.as_raw())
        .map_err(|error| failed(&error))?;
    let mut pixels = vec![0; 3 * preset.crop as usize * preset.crop as usize];
    let mut output =
        TypedImage::from_buffer(preset.crop, preset.crop, &mut pixels).map_err(|error| failed(&error))?;
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .use_alpha(false)
        .crop(left, top, scaled_width, scaled_height);
    Resizer::new().resize_typed(&source, &mut output, &options).map_err(|error| failed(&error))?;
    Ok(pixels)
}

/// The short edge becomes `short`, the long one keeps the ratio, truncated.
fn resized(width: u32, height: u32, short: u32) -> (u64, u64) {
    let long = |long: u32, edge: u32| u64::from(short) * u64::from(long) / u64::from(edge);
    if width <= height {
        (u64::from(short), long(height, width))
    } else {
        (long(width, height), u64::from(short))
    }
}

/// Where the centre crop starts in the source, and how long it is there. torchvision starts it at
/// `round((resized - crop) / 2)` of the resized picture, a half rounded to even.
fn crop_box(source: u32, resized: u64, crop: u32) -> (f64, f64) {
    let scale = f64::from(source) / resized as f64;
    let start = ((resized as f64 - f64::from(crop)) / 2.0).round_ties_even();
    (start * scale, f64::from(crop) * scale)
}

/// Interleaved RGB to planes of `(value / 255 - mean) / std`.
pub fn normalize(pixels: &[u8], preset: &Preset) -> Vec<f32> {
    let mut tensor = Vec::with_capacity(pixels.len());
    for channel in 0..3 {
        let (mean, std) = (preset.mean[channel], preset.std[channel]);
        tensor.extend(pixels.iter().skip(channel).step_by(3).map(|v| (f32::from(*v) / 255.0 - mean) / std));
    }
    tensor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_edge_is_truncated_and_the_crop_starts_at_the_even_half() {
        assert_eq!(resized(640, 480, 256), (341, 256));
        assert_eq!(resized(480, 641, 256), (256, 341));
        assert_eq!(resized(1, 8192, 256), (256, 2_097_152));
        assert_eq!(crop_box(341, 341, 224), (58.0, 224.0)); // 58.5
        assert_eq!(crop_box(343, 343, 224), (60.0, 224.0)); // 59.5
        assert_eq!(crop_box(512, 256, 224), (32.0, 448.0));
    }
}
