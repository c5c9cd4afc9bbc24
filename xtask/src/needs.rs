//! What RocksDB's build needs besides Rust: a C++ compiler, and libclang with clang's own headers, which read RocksDB's C
//! header when the bindings are made. Without them the build fails half-way, with a sentence about a path that nobody
//! knows.
//!
//! Libclang is installed where that is one quiet command (Debian and its kin, as root or with a sudo that does not
//! ask); elsewhere the command is printed. Compilers are left to the person. The power cuts of the torture need a program
//! of qemu, which is installed in the same way, but never asked for.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Makes sure that both are there.
///
/// # Errors
/// A sentence with the one command to type.
pub(crate) fn provide() -> Result<(), String> {
    find_compiler()?;
    let there = find_libclang();
    if there == Libclang::Whole {
        return Ok(());
    }
    if !runs("apt-get", &["--version"]) {
        // The headers may be where only libclang itself looks for them: then the build goes through.
        return if there == Libclang::WithoutHeaders {
            Ok(())
        } else {
            Err(type_this("libclang is missing"))
        };
    }
    install_with_apt()?;
    match find_libclang() {
        Libclang::Missing => {
            Err("libclang-dev is installed, and yet no libclang is found. Set LIBCLANG_PATH to the \
                                  directory that has libclang.so"
                .to_owned())
        }
        Libclang::Whole | Libclang::WithoutHeaders => Ok(()),
    }
}

fn type_this(why: &str) -> String {
    format!("{why}, and RocksDB's bindings need it. Type: {}", by_hand())
}

fn find_compiler() -> Result<(), String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    // CXX may carry a wrapper and flags: `ccache g++`.
    let program = compiler.split_whitespace().next().unwrap_or("c++");
    if runs(program, &["--version"]) {
        return Ok(());
    }
    let install = if runs("apt-get", &["--version"]) {
        "sudo apt-get install -y g++"
    } else if cfg!(target_os = "macos") {
        "xcode-select --install"
    } else {
        "the command of your system that installs g++ or clang++"
    };
    Err(format!("no C++ compiler: `{program}` does not run, and RocksDB is C++. Type: {install}"))
}

fn install_with_apt() -> Result<(), String> {
    eprintln!("libclang or its headers are missing, and RocksDB's bindings need them");
    if apt_installs("libclang-dev") {
        return Ok(());
    }
    Err(type_this("libclang is missing and could not be installed from here"))
}

/// Installs what the power cuts of the torture need, where that is one quiet command. They are left out where it is
/// not.
pub(crate) fn provide_power_cuts() {
    let there = || runs("qemu-storage-daemon", &["--version"]);
    // Mounting takes root anyway.
    if there() || !is_root() || !runs("apt-get", &["--version"]) {
        return;
    }
    // Debian has moved the program from the second to the first.
    for package in ["qemu-utils", "qemu-system-common"] {
        if there() || !apt_installs(package) {
            return;
        }
    }
}

/// Whether we may do everything.
pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

fn apt_installs(package: &str) -> bool {
    let script = format!("apt-get update && apt-get install -y --no-install-recommends {package}");
    eprintln!("installing with `{script}`");
    let mut install = if is_root() {
        Command::new("sh")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "sh"]);
        sudo
    };
    // The variable is set inside, because sudo drops the environment. Somebody else may hold apt's lock.
    let script = format!(
        "export DEBIAN_FRONTEND=noninteractive; {}",
        script.replace("apt-get ", "apt-get -o DPkg::Lock::Timeout=300 ")
    );
    install.args(["-c", &script]).stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn by_hand() -> &'static str {
    const KNOWN: [(&str, &str); 5] = [
        ("apt-get", "sudo apt-get install -y libclang-dev"),
        ("dnf", "sudo dnf install -y clang-devel"),
        ("pacman", "sudo pacman -S --noconfirm clang"),
        ("apk", "apk add clang-dev"),
        ("brew", "brew install llvm && export LIBCLANG_PATH=\"$(brew --prefix llvm)/lib\""),
    ];
    let found = KNOWN.into_iter().find(|(manager, _)| runs(manager, &["--version"]));
    found.map_or(
        "the command of your system that installs libclang (the package often is clang or llvm)",
        |(_, hint)| hint,
    )
}

fn runs(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Libclang {
    Missing,
    WithoutHeaders,
    Whole,
}

/// Looks where the bindings' build looks (clang-sys), so that both come to the same answer.
fn find_libclang() -> Libclang {
    if let Some(given) = std::env::var_os("LIBCLANG_PATH").map(PathBuf::from) {
        // A file or a directory, and whoever names it knows about the headers. What is set and wrong does not
        // hide what is right elsewhere.
        if is_libclang(&given) || has_libclang(&given) {
            return Libclang::Whole;
        }
    }
    let llvm_config = std::env::var("LLVM_CONFIG_PATH").unwrap_or_else(|_| "llvm-config".to_owned());
    let llvm = Command::new(llvm_config).arg("--libdir").stderr(Stdio::null()).output();
    let llvm = llvm.ok().map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let loader = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = llvm.into_iter().chain(std::env::split_paths(&loader)).collect();
    for root in [
        "/usr/local/lib",
        "/usr/local/lib64",
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/opt",
        "/opt/homebrew/opt",
    ] {
        add_with_children(Path::new(root), 2, &mut directories);
    }
    directories.push("/Library/Developer/CommandLineTools/usr/lib".into());
    find_in(&directories)
}

fn find_in(directories: &[PathBuf]) -> Libclang {
    if !directories.iter().any(|directory| has_libclang(directory)) {
        return Libclang::Missing;
    }
    let has_headers = directories.iter().any(|directory| {
        let versions = fs::read_dir(directory.join("clang")).into_iter().flatten().flatten();
        versions.into_iter().any(|version| version.path().join("include/stdbool.h").is_file())
    });
    if has_headers { Libclang::Whole } else { Libclang::WithoutHeaders }
}

fn add_with_children(directory: &Path, depth: u32, out: &mut Vec<PathBuf>) {
    out.push(directory.to_owned());
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // Follows links: distributions link their llvm directories.
        if entry.path().is_dir() {
            add_with_children(&entry.path(), depth - 1, out);
        }
    }
}

fn has_libclang(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| is_libclang(&entry.path()))
}

/// Whether this is a libclang that can be loaded. Dangling links are not, and `libclang-cpp` is another library.
fn is_libclang(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(names_libclang) && path.is_file()
}

fn names_libclang(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("libclang") else { return false };
    let shared = rest == ".dylib" || rest.ends_with(".so") || rest.contains(".so.");
    shared && (rest.starts_with('.') || rest.starts_with('-')) && !rest.starts_with("-cpp")
}

#[cfg(test)]
mod tests {
    use super::{Libclang, find_in, names_libclang};

    #[test]
    fn names_of_libclang_and_of_its_neighbours() {
        for name in [
            "libclang.so",
            "libclang.so.1",
            "libclang-14.so.1",
            "libclang-14.so.14.0.6",
            "libclang-18.so",
            "libclang.dylib",
        ] {
            assert!(names_libclang(name), "{name}");
        }
        for name in [
            "libclang-cpp.so.14",
            "libclang-cpp.so",
            "libclangTooling.a",
            "libclang.a",
            "libclang_rt.so",
            "liblldb.so",
        ] {
            assert!(!names_libclang(name), "{name}");
        }
    }

    #[test]
    fn a_dangling_link_is_no_library_and_a_library_needs_its_headers() {
        let directory = std::env::temp_dir().join(format!("cutover-xtask-{}", std::process::id()));
        let look = || find_in(&[directory.clone(), "/nowhere".into()]);
        std::fs::create_dir_all(directory.join("clang/14/include")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("gone", directory.join("libclang.so.1")).unwrap();
        assert_eq!(look(), Libclang::Missing);
        std::fs::write(directory.join("libclang-14.so.1"), "").unwrap();
        assert_eq!(look(), Libclang::WithoutHeaders);
        std::fs::write(directory.join("clang/14/include/stdbool.h"), "").unwrap();
        assert_eq!(look(), Libclang::Whole);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
