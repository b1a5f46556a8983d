//! x
use std::time::Instant;
use text::*;
fn main() {
    for f in std::env::args().skip(1) {
        let bytes = std::fs::read(&f).unwrap();
        let Ok(d) = gguf::Directory::parse(&bytes, bytes.len() as u64) else { continue };
        let t = Instant::now();
        match Tokenizer::from_metadata(d.metadata()) {
            Err(e) => println!("{f}: ERR {e}"),
            Ok(tk) => {
                let mut n = 0;
                for o in [(false,false),(true,true)] { for s in ["", "Hello <s> world é 日本 \0 \u{10ffff}", "aaaa<0x0A>"] {
                    let ids = tk.encode(s, EncodeOptions{add_special:o.0, parse_special:o.1}); n += ids.len(); assert!(ids.iter().all(|&i| i < tk.n_vocab())); tk.decode(&ids);
                    for &i in &ids { tk.token_bytes(i).unwrap(); } } }
                println!("{f}: ok {tk:?} {n} {:?}", t.elapsed());
            }
        }
    }
}
