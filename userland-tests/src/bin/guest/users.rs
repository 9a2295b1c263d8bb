//! Programs of which parts are other users.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

use nvproxy_abi::number::NV_ESC_RM_SHARE;
use nvproxy_sim::structs::frontend::NVOS57_PARAMETERS;
use ringfence::guest::{check, frontend};
use zerocopy::FromZeros;

use crate::Outcome;
use crate::children::{child, expect_success};
use crate::gpu::{Gpu, MEMORY, MIB, word};
use crate::mapped_memory::{Space, gpu_for_unified_memory};
use crate::memory_limit::duplicate;
use crate::pinning::{Pages, pin};

/// Becomes another user for good, as gosu and su do.
pub fn become_user(user: u32) -> Outcome {
    if user == geteuid().as_raw() {
        return Ok(());
    }
    let group = Gid::from_raw(user);
    let user = Uid::from_raw(user);
    setgroups(&[group])?;
    setresgid(group, group, group)?;
    Ok(setresuid(user, user, user)?)
}

/// Makes a client and pins for it, as each of these users in a process of its own, after the program itself has done so, and while
/// that goes on. What is no number among them is a file: it is made, and waited for until it is gone.
pub fn pins(users: &[String]) -> Outcome {
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    println!("itself: {}", word(pin(&gpu, MEMORY, &pages)));
    for user in users {
        let Ok(number) = user.parse::<u32>() else {
            fs::write(user, "")?;
            while fs::exists(user)? {
                sleep(Duration::from_millis(10));
            }
            continue;
        };
        let own = child(|| {
            become_user(number)?;
            let gpu = Gpu::open()?;
            let pages = Pages::new(libc::MAP_PRIVATE)?;
            println!("{user}: {}", word(pin(&gpu, MEMORY, &pages)));
            Ok(())
        });
        expect_success(own?)?;
    }
    println!("itself again: {}", word(pin(&gpu, MEMORY + 1, &pages)));
    Ok(())
}

/// Makes a client. As another user a child pins for it, and then the program itself, which makes a client of its own, too.
pub fn pins_as_another(arguments: &[String]) -> Outcome {
    let [user] = arguments else {
        return Err("a user".into());
    };
    let user = user.parse()?;
    let gpu = Gpu::open()?;
    let pages = Pages::new(libc::MAP_PRIVATE)?;
    let heir = child(|| {
        become_user(user)?;
        println!("a child: {}", word(pin(&gpu, MEMORY, &pages)));
        Ok(())
    });
    expect_success(heir?)?;
    become_user(user)?;
    println!("itself: {}", word(pin(&gpu, MEMORY + 1, &pages)));
    let own = Gpu::open()?;
    println!("for a new client: {}", word(pin(&own, MEMORY, &pages)));
    Ok(())
}

/// Makes a client with memory. A child of the same user tries to get at that memory, a child of another before and after it is
/// shared, and the program itself once it is that other.
pub fn apart(arguments: &[String]) -> Outcome {
    let [user] = arguments else {
        return Err("a user".into());
    };
    let user = user.parse()?;
    let gpu = gpu_for_unified_memory()?;
    gpu.allocate(MEMORY, 4 * MIB)?;
    for (who, number) in [("a child", geteuid().as_raw()), ("a stranger", user)] {
        let own = child(|| {
            become_user(number)?;
            reach(who, &gpu)
        });
        expect_success(own?)?;
    }
    share(&gpu)?;
    let own = child(|| {
        become_user(user)?;
        reach("a stranger who may", &gpu)
    });
    expect_success(own?)?;
    become_user(user)?;
    reach("itself", &gpu)
}

/// Lets everybody copy the memory, as CUDA does that makes a handle of it for other processes.
fn share(gpu: &Gpu) -> Outcome {
    let mut request = NVOS57_PARAMETERS::new_zeroed();
    (request.hClient, request.hObject) = (gpu.client.root, MEMORY);
    // RS_SHARE_POLICY (rs_access.h): no target, the right to copy, everybody.
    request.sharePolicy = [0, 1, 1];
    frontend(&gpu.client.control, NV_ESC_RM_SHARE, &mut request)?;
    Ok(check(request.status)?)
}

/// What comes of copying another's memory, and of having UVM map it.
fn reach(who: &str, other: &Gpu) -> Outcome {
    let own = gpu_for_unified_memory()?;
    let copied = duplicate(&own.client, MEMORY + 1, &other.client);
    println!("{who} copies: {}", word(copied));
    let space = Space::new(&own)?;
    println!(
        "{who} maps: {}",
        word(space.map_of(other.client.root, MEMORY))
    );
    Ok(space.unmap_all()?)
}
