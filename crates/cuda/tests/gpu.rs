//! Devices, memory and passes, on the fake driver.

#![cfg(target_os = "linux")]

mod common;

use std::{thread, time::Duration};

use common::{assert_near, download, numbers, upload};
use polylance_cuda::{
    CudaError, DeviceBuffer, Gpu, GpuInfo, NumberType, PinnedBuffer, Result, Uploader, gpus,
    ops::{AddNorm, Fill, Placement},
};
use polylance_fake_cuda::{Entry, FakeDriver, Session};

/// Memory of the device.
const DEVICE_BYTES: usize = 1 << 20;

fn session() -> Session {
    FakeDriver::session_with(&[("FAKE_CUDA_MEMORY", &DEVICE_BYTES.to_string())])
}

#[test]
fn devices_are_listed() {
    let _session = session();
    let expected = GpuInfo {
        ordinal: 0,
        name: "Fake GPU".to_owned(),
        compute: (8, 0),
        total_memory: DEVICE_BYTES as u64,
        multiprocessors: 4,
        pci_bus_id: "ffff:ff:00.0".to_owned(),
    };
    assert_eq!(gpus(), [expected]);
}

#[test]
fn upload_and_download_round_trip() -> Result<()> {
    let _session = session();
    let gpu = Gpu::open(0)?;
    let bytes: Vec<u8> = (0..2000u32).map(|number| (number * 7 % 251) as u8).collect();
    let buffer = DeviceBuffer::new(&gpu, 2100)?;
    // More parts than there are host buffers.
    let mut uploader = Uploader::new(&gpu, 300)?;
    uploader.upload(&bytes, buffer.slice(100..2100)?)?;
    uploader.upload_with(buffer.slice(0..100)?, |offset, part| part.fill(offset as u8 + 9))?;
    uploader.finish()?;
    let mut back = vec![0; 2100];
    gpu.download(buffer.all(), &mut back)?;
    assert_eq!(back[..100], [9; 100]);
    assert_eq!(back[100..], bytes);
    Ok(())
}

#[test]
fn copies_of_different_sizes_are_refused() -> Result<()> {
    let _session = session();
    let gpu = Gpu::open(0)?;
    let buffer = DeviceBuffer::new(&gpu, 64)?;
    let mut pass = gpu.begin()?;
    let slot = pass.hold(PinnedBuffer::new(&gpu, 32)?)?;
    let results = [
        pass.upload(slot, 0, buffer.all()),
        pass.upload(slot, 1, buffer.slice(0..32)?),
        pass.upload(slot, usize::MAX, buffer.slice(0..32)?),
        pass.download(buffer.all(), slot, 0),
        buffer.slice(0..65).map(|_| ()),
        buffer.all().slice(1..65).map(|_| ()),
        buffer.slice(32..64)?.slice(0..33).map(|_| ()),
    ];
    drop(pass);
    let mut uploader = Uploader::new(&gpu, 256)?;
    let more = [uploader.upload(&[0; 65], buffer.all()), gpu.download(buffer.all(), &mut [0; 63])];
    for error in results.into_iter().chain(more).map(Result::unwrap_err) {
        assert!(matches!(error, CudaError::Misuse { .. }), "{error}");
    }
    assert!(!gpu.is_lost());
    Ok(())
}

#[test]
fn all_memory_is_released() -> Result<()> {
    let session = session();
    {
        let gpu = Gpu::open(0)?;
        gpu.set_profile(true);
        let states = upload(&gpu, &[1.0f32; 1024])?;
        assert_eq!(session.memory_in_use(0), 4096);
        assert_eq!(gpu.free_memory()?, DEVICE_BYTES as u64 - 4096);
        let mut pass = gpu.begin()?;
        pass.add_norm(&residual_sum(&states, &states))?;
        let slot = pass.hold(PinnedBuffer::new(&gpu, 4096)?)?;
        pass.download(states.all(), slot, 0)?;
        // Waited for by its drop.
        drop(pass.finish()?);
        assert_eq!(session.pinned_in_use(0), 0);
        session.take_log();
    }
    assert_eq!(session.memory_in_use(0), 0);
    let log = session.take_log();
    let released = Entry::Call { device: Some(0), name: "cuDevicePrimaryCtxRelease".to_owned(), code: 0 };
    assert_eq!(log.last(), Some(&released));
    assert_eq!(log.iter().filter(|entry| matches!(entry, Entry::Misuse { .. })).count(), 0);
    Ok(())
}

/// `states += y`, over one row.
fn residual_sum<'a>(states: &'a DeviceBuffer, y: &'a DeviceBuffer) -> AddNorm<'a> {
    AddNorm {
        number: NumberType::F32,
        y: Some(y.all()),
        bias: None,
        placement: Placement::None,
        states: states.all(),
        x: None,
        tokens: 1,
        hidden: states.bytes() / 4,
    }
}

#[test]
fn passes_of_two_threads_do_not_mix() -> Result<()> {
    let session = session();
    let gpu = Gpu::open(0)?;
    thread::scope(|scope| {
        let workers: Vec<_> = (1..=2u16)
            .map(|worker| {
                let gpu = &gpu;
                scope.spawn(move || -> Result<()> {
                    let states = upload(gpu, &[0.0f32; 64])?;
                    let mut before = None;
                    for round in 1..=20u16 {
                        let number = f32::from(worker * 100 + round);
                        let mut pinned = PinnedBuffer::new(gpu, 512)?;
                        pinned.as_mut_slice::<f32>()[..64].fill(number);
                        let y = DeviceBuffer::new(gpu, 256)?;
                        let mut pass = gpu.begin()?;
                        let slot = pass.hold(pinned)?;
                        pass.upload(slot, 0, y.all())?;
                        pass.zero(states.all())?;
                        pass.add_norm(&residual_sum(&states, &y))?;
                        pass.download(states.all(), slot, 256)?;
                        // Two passes are in flight at once.
                        let pending = pass.finish()?;
                        if let Some((pending, slot, number)) = before.replace((pending, slot, number)) {
                            check(pending, slot, number)?;
                        }
                    }
                    let Some((pending, slot, number)) = before else { panic!("no pass") };
                    check(pending, slot, number)
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| panic!("a worker panicked")))
    })?;
    let misuse = session.take_log().into_iter().find(|entry| matches!(entry, Entry::Misuse { .. }));
    assert_eq!(misuse, None);
    Ok(())
}

fn check(pending: polylance_cuda::Pending, slot: polylance_cuda::HostSlot, number: f32) -> Result<()> {
    let mut done = pending.wait()?;
    let pinned = done.take(slot).unwrap_or_else(|| panic!("no buffer"));
    assert_eq!(pinned.as_slice::<f32>(), [number; 128]);
    assert!(done.take(slot).is_none());
    Ok(())
}

#[test]
fn dropped_pass_waits_for_its_work() -> Result<()> {
    let session = session();
    let gpu = Gpu::open(0)?;
    let buffer = DeviceBuffer::new(&gpu, 64)?;
    let mut pass = gpu.begin()?;
    let slot = pass.hold(PinnedBuffer::new(&gpu, 64)?)?;
    pass.upload(slot, 0, buffer.all())?;
    session.take_log();
    drop(pass);
    let waited = Entry::Call { device: Some(0), name: "cuStreamSynchronize".to_owned(), code: 0 };
    assert_eq!(session.take_log(), [waited, Entry::FreeHost { device: 0, bytes: 64 }]);
    assert_eq!(download::<u8>(&buffer, 64)?, [0; 64]);
    Ok(())
}

#[test]
fn times_are_added_up_by_label_and_kernel() -> Result<()> {
    let _session = session();
    let gpu = Gpu::open(0)?;
    let buffer = DeviceBuffer::new(&gpu, 1024)?;
    let fill =
        |seed| Fill { number: NumberType::F32, out: buffer.all(), seed, first: 0, count: 256, offset: 0.0, scale: 1.0 };
    let mut pass = gpu.begin()?;
    pass.fill(&fill(1))?;
    assert_eq!(pass.finish()?.wait()?.times(), []);

    gpu.set_profile(true);
    let mut pass = gpu.begin()?;
    pass.fill(&fill(1))?;
    pass.mark("weights");
    pass.fill(&fill(2))?;
    pass.fill(&fill(3))?;
    let done = pass.finish()?.wait()?;
    let counts: Vec<_> = done.times().iter().map(|time| (time.label, time.kernel.as_str(), time.launches)).collect();
    assert_eq!(counts, [("", "fill_f32", 1), ("weights", "fill_f32", 2)]);
    assert!(done.times().iter().all(|time| time.milliseconds > 0.0), "{:?}", done.times());
    Ok(())
}

#[test]
fn out_of_memory_names_sizes_and_keeps_the_device() -> Result<()> {
    let session = session();
    let gpu = Gpu::open(0)?;
    let kept = DeviceBuffer::new(&gpu, DEVICE_BYTES / 2)?;
    let error = DeviceBuffer::new(&gpu, DEVICE_BYTES).unwrap_err();
    let expected = CudaError::OutOfMemory {
        device: "GPU 0 (Fake GPU)".to_owned(),
        call: "cuMemAlloc",
        needed: Some(DEVICE_BYTES as u64),
        free: Some(DEVICE_BYTES as u64 / 2),
    };
    assert_eq!(error, expected);
    assert!(error.is_out_of_memory() && !gpu.is_lost());

    session.fail("cuMemHostAlloc", 1, 2);
    let error = PinnedBuffer::new(&gpu, 100).unwrap_err();
    assert!(matches!(error, CudaError::OutOfMemory { needed: Some(100), free: None, .. }), "{error}");
    drop(kept);
    assert_eq!(DeviceBuffer::new(&gpu, DEVICE_BYTES)?.bytes(), DEVICE_BYTES);
    Ok(())
}

#[test]
fn lost_device_fails_every_call_until_reset() -> Result<()> {
    let session = session();
    let gpu = Gpu::open(0)?;
    let buffer = upload(&gpu, &[1u32; 16])?;
    let mut pass = gpu.begin()?;
    let slot = pass.hold(PinnedBuffer::new(&gpu, 64)?)?;
    pass.download(buffer.all(), slot, 0)?;
    session.fail("cuEventSynchronize", 1, 700);
    let error = pass.finish()?.wait().unwrap_err();
    let expected = CudaError::Lost {
        device: "GPU 0 (Fake GPU)".to_owned(),
        call: "cuEventSynchronize",
        code: 700,
        name: "CUDA_ERROR_ILLEGAL_ADDRESS".to_owned(),
    };
    assert_eq!(error, expected);
    assert!(gpu.is_lost());

    // Every call returns the first error, without the driver; memory that a copy may still write to is not freed.
    session.take_log();
    assert_eq!(gpu.begin().unwrap_err(), expected);
    assert_eq!(gpu.free_memory().unwrap_err(), expected);
    assert_eq!(DeviceBuffer::new(&gpu, 64).unwrap_err(), expected);
    assert_eq!(Gpu::reset(0).unwrap_err(), CudaError::InUse { ordinal: 0, open: 1 });
    drop(buffer);
    assert_eq!(Gpu::reset(0).unwrap_err(), CudaError::InUse { ordinal: 0, open: 1 });
    drop(gpu);
    assert_eq!(session.take_log(), []);
    assert_eq!([session.memory_in_use(0), session.pinned_in_use(0)], [64, 64]);

    // Without a reset the device stays lost.
    assert!(Gpu::open(0).unwrap_err().is_lost());
    Gpu::reset(0)?;
    assert_eq!([session.memory_in_use(0), session.pinned_in_use(0)], [0, 0]);
    let gpu = Gpu::open(0)?;
    assert_eq!(download::<u32>(&upload(&gpu, &[5; 4])?, 4)?, [5; 4]);
    Ok(())
}

#[test]
fn failed_launch_loses_the_device() -> Result<()> {
    let session = session();
    let gpu = Gpu::open(0)?;
    let states = upload(&gpu, &[0.0f32; 8])?;
    session.fail("cuLaunchKernel", 1, 719);
    let mut pass = gpu.begin()?;
    let error = pass.add_norm(&residual_sum(&states, &states)).unwrap_err();
    assert!(matches!(error, CudaError::Lost { call: "cuLaunchKernel", code: 719, .. }), "{error}");
    assert_eq!(pass.finish().unwrap_err(), error);
    drop((states, gpu));
    Gpu::reset(0)
}

#[test]
fn failed_open_releases_the_device() -> Result<()> {
    let session = session();
    session.fail("cuModuleLoadData", 1, 222);
    let error = Gpu::open(0).unwrap_err();
    assert!(matches!(error, CudaError::OldDriver { found: 13_000, detail: Some(_), .. }), "{error}");
    session.fail("cuStreamCreate", 1, 2);
    assert!(Gpu::open(0).unwrap_err().is_out_of_memory());
    session.fail("cuModuleLoadData", 1, 209);
    let error = Gpu::open(0).unwrap_err();
    assert!(matches!(error, CudaError::Unsupported { compute: (8, 0), .. }), "{error}");
    let calls: Vec<String> = session
        .take_log()
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Call { name, code: 0, .. } if name.starts_with("cuDevicePrimaryCtx") => Some(name),
            _ => None,
        })
        .collect();
    assert_eq!(calls, ["cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease"].repeat(3));
    assert!(!Gpu::open(0)?.is_lost());
    Ok(())
}

#[test]
fn missing_kernel_does_not_lose_the_device() -> Result<()> {
    let session = session();
    let gpu = Gpu::open(0)?;
    let states = upload(&gpu, &[0.0f32; 8])?;
    session.fail("cuModuleGetFunction", 1, 500);
    let mut pass = gpu.begin()?;
    let error = pass.add_norm(&residual_sum(&states, &states)).unwrap_err();
    assert_eq!(error.to_string(), "add_norm_f32_4: the program's binary has no such kernel");
    pass.add_norm(&residual_sum(&states, &states))?;
    pass.finish()?.wait()?;
    assert_near(&download::<f32>(&states, 8)?, &[0.0; 8], "states");
    Ok(())
}

#[test]
fn wait_sleeps_until_the_device_is_done() -> Result<()> {
    let session = session();
    let gpu = Gpu::open(0)?;
    let values = numbers::<f32>(3, 16);
    let states = upload(&gpu, &values)?;
    session.fail("cuEventSynchronize", 1, -1);
    let mut pass = gpu.begin()?;
    pass.add_norm(&residual_sum(&states, &states))?;
    let pending = pass.finish()?;
    thread::scope(|scope| {
        let waiting = scope.spawn(move || pending.wait());
        thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        session.release();
        waiting.join().unwrap_or_else(|_| panic!("the waiting thread panicked"))
    })?;
    let doubled: Vec<f64> = values.iter().map(|value| 2.0 * f64::from(*value)).collect();
    assert_near(&download::<f32>(&states, 16)?, &doubled, "states");
    Ok(())
}
