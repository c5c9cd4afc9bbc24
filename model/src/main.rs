//! x
use cutover_model::{
    check, definition,
    launch::{Bounds, Launches},
};
fn main() {
    let mut a: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let which = a.remove(0);
    let r = if which == 0 {
        let b = Bounds {
            clients: a[0],
            keys: a[1] as u8,
            epochs: a[2] as u8,
            crashes: a[3] as u8,
            failures: a[4] as u8,
            replaces: a[5] == 1,
            collects: a[6] == 1,
            symmetric: true,
        };
        println!("{b:?}");
        check::exhaust(Launches::new(b), 2)
    } else if which == 2 {
        let b = cutover_model::tenant::Bounds { stores: a[0] as u8, crashes: a[1] as u8, symmetric: true };
        println!("{b:?}");
        check::exhaust(cutover_model::tenant::Tenants::new(b), 2)
    } else {
        let b = definition::Bounds {
            clients: a[0],
            definitions: a[1] as u8,
            epochs: a[2] as u8,
            crashes: a[3] as u8,
            failures: a[4] as u8,
            symmetric: true,
        };
        println!("{b:?} {}", std::mem::size_of::<definition::state::State>());
        check::exhaust(definition::Definitions::new(b), 2)
    };
    println!("{} states {} transitions depth {} {:?}", r.states, r.transitions, r.depth, r.took);
    for x in r.broken {
        println!("BROKEN {x}");
    }
    println!("missed {:?}", r.missed);
}
