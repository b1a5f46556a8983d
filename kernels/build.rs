//! Compiles `hip/kernels.hip` for GPUs and lays the images into the crate.
//!
//! A clang that can is looked for in `HIP_CLANG`, ROCm's folder, and on `PATH` (clang 19 or newer, zig's). Neither ROCm nor CUDA is needed. Without such a clang the crate builds with no image and
//! says so when a GPU is to be used.
//!
//! `HEARTH_HIP_TARGETS` chooses what is made: a list of `gfx…`, `sm_90`, and one of `host…` (the library that the emulation runs), or `none`. `host-asan` is under the address sanitizer, others have the
//! layout of matrix tiles of a GPU. By default all GPU targets in release builds, and none in debug builds, which need not wait for them. What was asked for by name and cannot be made fails the build.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SOURCE: &str = "hip/kernels.hip";
const FIBERS: &str = "hip/fibers.cpp";
const AMD: [&str; 5] = ["gfx90a", "gfx942", "gfx1030", "gfx1100", "gfx1201"];
const NVIDIA: &str = "sm_90";
/// The host's libraries, and what is compiled otherwise for them.
const HOST: [(&str, &[&str]); 7] = [
    ("host", &[]),
    (
        "host-asan",
        &[
            "-fsanitize=address",
            "-fno-omit-frame-pointer",
            "-shared-libasan",
            // So that a report names the line.
            "-gline-tables-only",
        ],
    ),
    ("host-plain", &["-DHEARTH_TILE=TILE_PLAIN"]),
    ("host-mma", &["-DHEARTH_TILE=TILE_MMA"]),
    ("host-mfma", &["-DHEARTH_TILE=TILE_MFMA"]),
    ("host-wmma11", &["-DHEARTH_TILE=TILE_WMMA11"]),
    ("host-wmma12", &["-DHEARTH_TILE=TILE_WMMA12"]),
];
const FLAGS: [&str; 4] = ["-std=c++20", "-O3", "-Wall", "-Wextra"];

fn main() -> Outcome<()> {
    println!("cargo::rerun-if-changed=build.rs");
    for entry in fs::read_dir("hip")? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|kind| ["hip", "h", "cpp"].iter().any(|source| kind == *source))
        {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    for name in ["HIP_CLANG", "HEARTH_HIP_TARGETS", "HIP_PTXAS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let asked = env::var("HEARTH_HIP_TARGETS").ok();
    let targets: Vec<&str> = match asked.as_deref() {
        None if env::var("PROFILE").is_ok_and(|profile| profile != "release") => Vec::new(),
        None => AMD.into_iter().chain([NVIDIA]).collect(),
        Some("none") => Vec::new(),
        Some(list) => list.split(',').collect(),
    };
    let images = match Clang::find(&targets) {
        Some(clang) => compile_all(&clang, &targets, &out)?,
        None if asked.is_some() && !targets.is_empty() => {
            return Err(
                "HEARTH_HIP_TARGETS asks for kernels, but no clang here can make them".into(),
            );
        }
        None => Images::default(),
    };
    fs::write(out.join("images.rs"), images.source()?)?;
    Ok(())
}

/// Paths of what was made.
#[derive(Default)]
struct Images {
    amd: Option<PathBuf>,
    nvidia: Option<PathBuf>,
    host: Option<PathBuf>,
}

impl Images {
    /// Constants with the bytes of each image.
    fn source(&self) -> Outcome<String> {
        let mut source = String::new();
        for (name, doc, path) in [
            ("AMD", "A bundle of code objects, one per target", &self.amd),
            ("NVIDIA", "A cubin, or PTX text", &self.nvidia),
            ("HOST", "A shared object for the emulation", &self.host),
        ] {
            let value = match path {
                Some(path) => format!("Some(include_bytes!({path:?}))"),
                None => "None".to_owned(),
            };
            writeln!(
                source,
                "/// {doc}.\npub(super) const {name}: Option<&[u8]> = {value};"
            )?;
        }
        Ok(source)
    }
}

/// A clang that compiles for GPUs.
struct Clang {
    command: PathBuf,
    is_zig: bool,
}

impl Clang {
    /// The first that compiles a small kernel for the most demanding of the targets.
    fn find(targets: &[&str]) -> Option<Clang> {
        let probe = *targets.last()?;
        let named = env::var_os("HIP_CLANG").map(PathBuf::from);
        let usual = [
            "/opt/rocm/llvm/bin/clang++",
            "clang++-21",
            "clang++-20",
            "clang++-19",
            "clang++",
            "zig",
        ];
        named
            .into_iter()
            .chain(usual.map(PathBuf::from))
            .map(|command| Clang {
                is_zig: command.file_stem().is_some_and(|name| name == "zig"),
                command,
            })
            .find(|clang| clang.can_compile(probe))
    }

    fn can_compile(&self, target: &str) -> bool {
        let source = "extern \"C\" __attribute__((global)) void probe(int* out) { *out = 1; }";
        let source = if host_flags(target).is_some() {
            "int probe;"
        } else {
            source
        };
        let path = env::temp_dir().join(format!("hearth-probe-{}.hip", std::process::id()));
        if fs::write(&path, source).is_err() {
            return false;
        }
        let mut command = self.device_command(target);
        command.arg("-S").arg(&path).args(["-o", "/dev/null"]);
        let works = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        // What is left behind there is the system's to tidy.
        let _ = fs::remove_file(path);
        works
    }

    /// A command that compiles for one target, without its input and output.
    fn device_command(&self, target: &str) -> Command {
        let mut command = Command::new(&self.command);
        if self.is_zig {
            command.arg("clang");
        }
        match (target, host_flags(target)) {
            (_, Some(flags)) => command.args(["-x", "c++"]).args(flags),
            (NVIDIA, _) => command.args([
                "-x",
                "cuda",
                "--cuda-device-only",
                "--cuda-gpu-arch=sm_90",
                "--cuda-feature=+ptx80",
                "-nocudainc",
                "-nocudalib",
            ]),
            (amd, _) => command
                .args(["-x", "hip", "--cuda-device-only", "-nogpuinc", "-nogpulib"])
                .arg(format!("--offload-arch={amd}")),
        };
        command.args(FLAGS);
        command
    }
}

/// What is compiled otherwise for one of the host's libraries; `None` for a GPU.
fn host_flags(target: &str) -> Option<&'static [&'static str]> {
    let host = HOST.iter().find(|(name, _)| *name == target);
    host.map(|(_, flags)| *flags)
}

/// Compiles for all targets at once, one process each.
fn compile_all(clang: &Clang, targets: &[&str], out: &Path) -> Outcome<Images> {
    let mut running = Vec::new();
    for &target in targets {
        let path = out.join(format!("kernels.{target}"));
        let mut command = clang.device_command(target);
        match target {
            _ if host_flags(target).is_some() => command.args([
                "-fPIC",
                "-shared",
                "-fvisibility=hidden",
                SOURCE,
                FIBERS,
                "-lpthread",
            ]),
            NVIDIA => command.args(["-S", SOURCE]),
            _ if clang.is_zig => command.args(["-S", SOURCE]),
            _ => command.args(["--no-gpu-bundle-output", SOURCE]),
        };
        running.push((
            target,
            path.clone(),
            Running::start(command.arg("-o").arg(&path))?,
        ));
    }
    let mut images = Images::default();
    let mut code_objects = Vec::new();
    for (target, path, process) in running {
        process.finish()?;
        match target {
            NVIDIA => images.nvidia = Some(assemble_ptx(path)?),
            _ if host_flags(target).is_some() => images.host = Some(path),
            _ => {
                if clang.is_zig {
                    assemble_with_zig(clang, target, &path)?;
                }
                code_objects.push((target, fs::read(&path)?));
            }
        }
    }
    if !code_objects.is_empty() {
        let path = out.join("kernels.amd");
        fs::write(&path, bundle(&code_objects)?)?;
        images.amd = Some(path);
    }
    Ok(images)
}

/// A compiler under way.
struct Running {
    said: String,
    process: Child,
}

impl Running {
    fn start(command: &mut Command) -> Outcome<Running> {
        let said = format!("{command:?}");
        let process = command
            .spawn()
            .map_err(|error| format!("{said}: {error}"))?;
        Ok(Running { said, process })
    }

    fn finish(mut self) -> Outcome<()> {
        match self.process.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("{}: {status}", self.said).into()),
        }
    }
}

/// Turns PTX into a cubin where CUDA's assembler is found. A cubin loads at once, where PTX is compiled at every start; text remains what it was if there is none.
fn assemble_ptx(ptx: PathBuf) -> Outcome<PathBuf> {
    let ptxas = env::var_os("HIP_PTXAS").unwrap_or_else(|| "ptxas".into());
    let cubin = ptx.with_extension("cubin");
    let found = Command::new(&ptxas)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !found.is_ok_and(|status| status.success()) {
        return Ok(ptx);
    }
    Running::start(
        Command::new(ptxas)
            .args(["-arch=sm_90", "-O3"])
            .arg(&ptx)
            .arg("-o")
            .arg(&cubin),
    )?
    .finish()?;
    Ok(cubin)
}

/// zig's clang stops at assembly text for AMD: its assembler and linker are called one by one.
fn assemble_with_zig(clang: &Clang, target: &str, path: &Path) -> Outcome<()> {
    let object = path.with_extension("o");
    let zig = || Command::new(&clang.command);
    Running::start(
        zig()
            .args([
                "clang",
                "--target=amdgcn-amd-amdhsa",
                "-x",
                "assembler",
                "-c",
            ])
            .arg(format!("-mcpu={target}"))
            .arg(path)
            .arg("-o")
            .arg(&object),
    )?
    .finish()?;
    Running::start(
        zig()
            .args(["ld.lld", "-shared", "--no-undefined"])
            .arg(&object)
            .arg("-o")
            .arg(path),
    )?
    .finish()
}

/// Code objects in the container that `hipModuleLoadData` takes: a magic word, the number of entries, offset, length and target of each, then the objects on pages of their own. The first entry
/// is the host's, which has no code.
fn bundle(code_objects: &[(&str, Vec<u8>)]) -> Outcome<Vec<u8>> {
    const PAGE: usize = 4096;
    let mut bytes = b"__CLANG_OFFLOAD_BUNDLE__".to_vec();
    bytes.extend(u64::try_from(1 + code_objects.len())?.to_le_bytes());
    let mut offset = PAGE;
    let mut entry = |name: &str, len: usize| -> Outcome<()> {
        for number in [offset, len, name.len()] {
            bytes.extend(u64::try_from(number)?.to_le_bytes());
        }
        bytes.extend(name.as_bytes());
        offset = (offset + len).next_multiple_of(PAGE);
        Ok(())
    };
    entry("host-x86_64-unknown-linux-gnu", 0)?;
    for (target, code) in code_objects {
        entry(&format!("hipv4-amdgcn-amd-amdhsa--{target}"), code.len())?;
    }
    if bytes.len() > PAGE {
        return Err("the bundle's header is longer than a page".into());
    }
    for (_, code) in code_objects {
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        bytes.extend_from_slice(code);
    }
    Ok(bytes)
}
