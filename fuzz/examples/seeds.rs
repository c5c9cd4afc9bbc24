//! Writes what the decoders' targets start from: the golden fixtures, as they are and, for records, as type and body. For when there are new ones.
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds` in the root of the repository.

use std::error::Error;
use std::fs;
use std::path::Path;

use cutover_formats::codec::{FRAME, SLOT_FRAME};

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = here.join("seeds");
    let mut written = 0;
    for entry in fs::read_dir(here.join("../storage-formats/fixtures/v1"))? {
        let path = entry?.path();
        let name = path.file_stem().ok_or("a fixture without a name")?.to_string_lossy().into_owned();
        let text = fs::read_to_string(&path)?;
        let kind = name.split('-').next().unwrap_or_default();
        let is_hex = path.extension().is_some_and(|extension| extension == "hex");
        let bytes = if is_hex { unhex(&text)? } else { text.trim_end().as_bytes().to_vec() };
        // Where a frame says its type, and where its body begins.
        let parts = match kind {
            "record" => Some((0, FRAME)),
            "slot" => Some((8, SLOT_FRAME)),
            _ => None,
        };
        let target = corpus.join(if kind == "key" { "decode_key" } else { "decode_record" });
        fs::create_dir_all(&target)?;
        if let Some((at, from)) = parts {
            let kind = bytes.get(at..=at).ok_or("a fixture without a type")?;
            let body = bytes.get(from..).ok_or("a fixture without a body")?;
            fs::write(target.join(format!("{name}-body")), [kind, body].concat())?;
            written += 1;
        }
        fs::write(target.join(&name), bytes)?;
        written += 1;
    }
    for entry in fs::read_dir(here.join("../samples"))? {
        let path = entry?.path();
        let target = corpus.join("wfformat");
        fs::create_dir_all(&target)?;
        fs::copy(&path, target.join(path.file_name().ok_or("a sample without a name")?))?;
        written += 1;
    }
    println!("{written} seeds in {}", corpus.display());
    Ok(())
}

fn unhex(text: &str) -> Result<Vec<u8>, std::num::ParseIntError> {
    let digits = text.lines().flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace());
    digits.map(|byte| u8::from_str_radix(byte, 16)).collect()
}
