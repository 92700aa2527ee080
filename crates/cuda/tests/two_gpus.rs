//! Two devices: each fails alone, and neither accepts the memory of the other.

#![cfg(target_os = "linux")]

mod common;

use common::{download, upload};
use polylance_cuda::{
    CudaError, DeviceBuffer, Gpu, NumberType, PinnedBuffer, Result, gpus,
    ops::{AddNorm, Placement},
};
use polylance_fake_cuda::{FakeDriver, Session};

fn session() -> Session {
    FakeDriver::session_with(&[("FAKE_CUDA_DEVICES", "2"), ("FAKE_CUDA_MEMORY", "1048576")])
}

#[test]
fn both_devices_are_listed_and_a_third_is_refused() {
    let _session = session();
    assert_eq!(gpus().iter().map(|gpu| gpu.ordinal).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(Gpu::open(2).unwrap_err(), CudaError::NoDevice { ordinal: 2, count: 2 });
    assert_eq!(Gpu::reset(7).unwrap_err(), CudaError::NoDevice { ordinal: 7, count: 2 });
}

#[test]
fn passes_on_one_thread_go_to_their_own_device() -> Result<()> {
    let session = session();
    let (first, second) = (Gpu::open(0)?, Gpu::open(1)?);
    let buffers = [DeviceBuffer::new(&first, 64)?, DeviceBuffer::new(&second, 64)?];
    // The passes overlap: each call must find its own context.
    let (mut pass, mut other) = (first.begin()?, second.begin()?);
    pass.zero(buffers[0].all())?;
    other.zero(buffers[1].all())?;
    let (pending, other) = (pass.finish()?, other.finish()?);
    pending.wait()?;
    other.wait()?;
    assert_eq!(download::<u8>(&buffers[0], 64)?, [0; 64]);
    assert_eq!(download::<u8>(&buffers[1], 64)?, [0; 64]);
    assert_eq!([session.memory_in_use(0), session.memory_in_use(1)], [64, 64]);
    Ok(())
}

#[test]
fn memory_of_the_other_device_is_refused() -> Result<()> {
    let _session = session();
    let (first, second) = (Gpu::open(0)?, Gpu::open(1)?);
    let ours = upload(&first, &[1.0f32; 8])?;
    let theirs = upload(&second, &[1.0f32; 8])?;
    let mut pass = first.begin()?;
    let misuse = |result: Result<()>| {
        let error = result.unwrap_err();
        assert!(matches!(&error, CudaError::Misuse { reason, .. } if reason.contains("another device's")), "{error}");
    };
    misuse(pass.zero(theirs.all()));
    misuse(pass.add_norm(&AddNorm {
        number: NumberType::F32,
        y: None,
        bias: Some(theirs.all()),
        placement: Placement::None,
        states: ours.all(),
        x: None,
        tokens: 1,
        hidden: 8,
    }));
    let error = pass.hold(PinnedBuffer::new(&second, 8)?).unwrap_err();
    assert!(matches!(error, CudaError::Misuse { .. }), "{error}");
    Ok(())
}

#[test]
fn lost_device_does_not_affect_the_other() -> Result<()> {
    let session = session();
    let (first, second) = (Gpu::open(0)?, Gpu::open(1)?);
    session.fail("cuMemsetD8Async", 1, 719);
    let buffer = DeviceBuffer::new(&first, 64)?;
    let error = first.begin()?.zero(buffer.all()).unwrap_err();
    assert!(error.is_lost(), "{error}");
    assert!(first.is_lost() && !second.is_lost());
    let kept = upload(&second, &[7u32; 4])?;
    drop((buffer, first));
    Gpu::reset(0)?;
    assert_eq!(download::<u32>(&kept, 4)?, [7; 4]);
    assert_eq!(session.memory_in_use(0), 0);
    assert!(!Gpu::open(0)?.is_lost());
    Ok(())
}
