//! throwaway
#![allow(missing_docs, clippy::all, reason="throwaway")]
use kernels::*; use gguf::TensorType; use std::time::Instant; use std::sync::Arc;
fn cpu_ns() -> f64 { std::fs::read_to_string("/proc/thread-self/schedstat").unwrap().split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e9 }
fn main() {
    let threads: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let cpu = Device::cpu(threads.try_into().unwrap()).unwrap();
    println!("{}", cpu.description());
    let n: usize = std::env::args().nth(4).map_or(4096, |s| s.parse().unwrap());
    let only = std::env::args().nth(2); let only_rows: Option<usize> = std::env::args().nth(3).map(|s| s.parse().unwrap()); for t in [TensorType::F32, TensorType::F16, TensorType::BF16, TensorType::Q8_0] {
        if only.as_deref().is_some_and(|o| o != t.name()) { continue; } let rb = t.row_bytes(n as u64).unwrap() as usize;
        let copies = 8; // exceed L3
        let mut seed = 1u64;
        let bytes: Vec<u8> = (0..rb*n*copies).map(|_| { seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1); ((seed >> 40) as u8) & 0x3f }).collect();
        let owner: Owner = Arc::new(bytes);
        let ws: Vec<Tensor> = (0..copies).map(|i| Tensor::from_owner(&cpu, t, &[n, n], owner.clone(), i*rb*n..(i+1)*rb*n).unwrap()).collect();
        for rows in [1usize, 2, 3, 4, 8, 24, 256] {
            if only_rows.is_some_and(|o| o != rows) { continue; } let data: Vec<f32> = (0..rows*n).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
            let x = Tensor::from_f32(&cpu, &[rows, n], &data).unwrap();
            let mut out = Tensor::zeros(&cpu, &[rows, n]).unwrap();
            let reps = if rows < 24 { 5 } else if n < 4096 { 60 } else { 3 };
            let mut best = f64::MAX;
            for _ in 0..reps { let s = Instant::now(); let c = cpu_ns(); for w in &ws { ops::matmul(w, &x, &mut out).unwrap(); } let e = if threads == 1 { cpu_ns() - c } else { s.elapsed().as_secs_f64() }; best = best.min(e / copies as f64); }
            println!("{:5} rows {:4}: {:8.3} ms, {:7.4} ms/row, {:6.2} GB/s, {:7.2} GMAC/s", t.name(), rows, best*1e3, best*1e3/rows as f64, (rb*n) as f64/best/1e9, (rows*n*n) as f64/best/1e9);
        }
    }
}
