//! Compressed captures, told by their first bytes.

use std::io::{self, Cursor, Read};

/// How a file was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// A stream of what `input` holds, unpacked. A file of several gzip members or zstd frames is one stream.
pub(super) fn decompress(mut input: Box<dyn Read + Send>) -> io::Result<(Compression, Box<dyn Read + Send>)> {
    let mut start = Vec::with_capacity(ZSTD.len());
    input.by_ref().take(ZSTD.len() as u64).read_to_end(&mut start)?;
    let compression = if start.starts_with(GZIP) {
        Compression::Gzip
    } else if start.starts_with(ZSTD) {
        Compression::Zstd
    } else {
        Compression::None
    };
    let whole = Cursor::new(start).chain(input);
    let stream: Box<dyn Read + Send> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
    };
    Ok((compression, stream))
}
