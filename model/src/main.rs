use cutover_model::{check, launch::{Bounds, Launches}};
fn main() {
    let a: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let b = Bounds { clients: a[0], keys: a[1] as u8, epochs: a[2] as u8, crashes: a[3] as u8, failures: a[4] as u8, replaces: a[5] == 1, collects: a[6] == 1, symmetric: true };
    let r = check::exhaust(Launches::new(b), 1);
    println!("{b:?}\n{} states {} transitions depth {} {:?} size {}", r.states, r.transitions, r.depth, r.took, std::mem::size_of::<cutover_model::launch::state::State>());
    for x in r.broken { println!("BROKEN {x}"); }
    println!("missed {:?}", r.missed);
}
