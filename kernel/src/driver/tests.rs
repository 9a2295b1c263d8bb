use super::*;

#[test]
fn selections_are_parsed() {
    assert_eq!("all".parse(), Ok(Selection::All));
    assert_eq!("none".parse(), Ok(Selection::None));
    assert_eq!(
        "1,GPU-ab".parse(),
        Ok(Selection::Listed(vec!["1".into(), "GPU-ab".into()]))
    );
    let parts = ["0/1/0", "MIG-GPU-ab/2/1"];
    assert_eq!(
        parts.join(",").parse(),
        Ok(Selection::Listed(parts.map(str::to_owned).into()))
    );
    assert_eq!(
        "0,MIG-5a3e".parse::<Selection>(),
        Err(NoName::Part("MIG-5a3e".into()))
    );
    for text in ["MIG-0/1/0", "0/+1/0", "+1"] {
        let unknown = Err(NoName::Unknown(text.into()));
        assert_eq!(text.parse::<Selection>(), unknown);
    }
    assert!("first".parse::<Selection>().is_err());
    assert!("".parse::<Selection>().is_err());
}

#[test]
fn selections_pick_gpus_by_index_and_uuid() {
    let gpu = |minor| Gpu {
        minor,
        uuid: format!("GPU-{minor}"),
        model: String::new(),
    };
    let all = [gpu(3), gpu(5)];
    let user = Asker::CommandLine;
    let picked = |names: &[&str], asker: &Asker| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        pick(&all, &[], &names, asker).map(|(minors, _)| minors)
    };
    assert_eq!(picked(&["1", "GPU-3", "1"], &user), Ok(vec![5, 3]));
    assert_eq!(picked(&["gpu-5"], &user), Ok(vec![5]));
    let container = Asker::Container("/etc/settings".into());
    for (asker, begins) in [(&user, "--gpus"), (&container, "the container's GPUs")] {
        let no = |names: &[&str]| picked(names, asker).unwrap_err().message;
        let known = "it has 0 (GPU-3), 1 (GPU-5)";
        let expected = format!("{begins}: this machine has no GPU 2; {known}");
        assert_eq!(no(&["2"]), expected);
        let expected = format!("{begins}: this machine has no GPU +1; {known}");
        assert_eq!(no(&["+1"]), expected);
        let none = "none (nvidia-smi mig divides it)";
        let expected =
            format!("{begins}: GPU 0 has no part with GI ID 1 and CI ID 2: it has {none}");
        assert_eq!(no(&["0/1/2"]), expected);
    }
}

#[test]
fn a_gpu_is_read_from_the_driver_s_description() {
    let text = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 36\nGPU UUID: \t GPU-1234\nVideo BIOS: \t 96.00\n\
                Bus Type: \t PCIe\nDevice Minor: \t 4\nGPU Firmware: \t 580.159.04\n";
    let gpu = Gpu {
        minor: 4,
        uuid: "GPU-1234".into(),
        model: "NVIDIA H100 80GB HBM3".into(),
    };
    assert_eq!(gpu_from_information(text), Some(gpu));
    assert_eq!(gpu_from_information("Model: x\n"), None);
}
