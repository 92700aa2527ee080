//! Copies on the second stream, on the fake driver, with copies as late and as early as their order allows.

#![cfg(target_os = "linux")]

mod common;

use std::sync::Arc;

use common::{download, upload};
use polylance_cuda::{
    CudaError, DeviceBuffer, Gpu, NumberType, Pending, PinnedBuffer, Result,
    ops::{AddNorm, Placement},
};
use polylance_fake_cuda::{Copies, Entry, FakeDriver, Session};

/// Numbers of a buffer.
const NUMBERS: usize = 64;
const BYTES: usize = 4 * NUMBERS;

fn sources(gpu: &Arc<Gpu>, count: usize) -> Result<Vec<Arc<PinnedBuffer>>> {
    let filled = |at: usize| {
        let mut pinned = PinnedBuffer::new(gpu, BYTES)?;
        pinned.as_mut_slice::<f32>().fill((1 << at) as f32);
        Ok(Arc::new(pinned))
    };
    (0..count).map(filled).collect()
}

/// Adds every source to the sums, through two buffers: while one is added, the next is copied.
fn add_all(
    gpu: &Arc<Gpu>,
    sources: &[Arc<PinnedBuffer>],
    buffers: &[DeviceBuffer; 2],
    sums: &DeviceBuffer,
) -> Result<Pending> {
    let mut pass = gpu.begin()?;
    let mut copy = pass.copy_ahead(&sources[0], buffers[0].all())?;
    for number in 0..sources.len() {
        pass.await_copy(&copy)?;
        if let Some(next) = sources.get(number + 1) {
            copy = pass.copy_ahead(next, buffers[(number + 1) % 2].all())?;
        }
        pass.add_norm(&AddNorm {
            number: NumberType::F32,
            y: Some(buffers[number % 2].all()),
            bias: None,
            placement: Placement::None,
            states: sums.all(),
            x: None,
            tokens: 1,
            hidden: NUMBERS,
        })?;
    }
    pass.finish()
}

fn misuses(session: &Session) -> usize {
    session.take_log().iter().filter(|entry| matches!(entry, Entry::Misuse { .. })).count()
}

#[test]
fn copies_are_ordered_with_the_kernels_before_and_after_them() -> Result<()> {
    for copies in [Copies::Late, Copies::Early] {
        let session = FakeDriver::session();
        session.set_copies(copies);
        let gpu = Gpu::open(0)?;
        let sources = sources(&gpu, 5)?;
        let buffers = [DeviceBuffer::new(&gpu, BYTES)?, DeviceBuffer::new(&gpu, BYTES)?];
        let sums = upload(&gpu, &[0.0f32; NUMBERS])?;
        // Three passes are queued before the first is waited for.
        let pending = [(); 3].map(|()| add_all(&gpu, &sources, &buffers, &sums));
        for pending in pending {
            pending?.wait()?;
        }
        assert_eq!(download::<f32>(&sums, NUMBERS)?, [93.0; NUMBERS], "{copies:?}");
        assert_eq!(misuses(&session), 0);
    }
    Ok(())
}

#[test]
fn copy_of_an_earlier_pass_can_be_awaited() -> Result<()> {
    let session = FakeDriver::session();
    let gpu = Gpu::open(0)?;
    let sources = sources(&gpu, 2)?;
    let buffer = DeviceBuffer::new(&gpu, BYTES)?;
    let mut pass = gpu.begin()?;
    let copy = pass.copy_ahead(&sources[1], buffer.all())?;
    let pending = pass.finish()?;
    let mut pass = gpu.begin()?;
    pass.await_copy(&copy)?;
    let slot = pass.hold(PinnedBuffer::new(&gpu, BYTES)?)?;
    pass.download(buffer.all(), slot, 0)?;
    let mut done = pass.finish()?.wait()?;
    assert_eq!(done.take(slot).map(|pinned| pinned.as_slice::<f32>()[0]), Some(2.0));
    pending.wait()?;
    assert_eq!(misuses(&session), 0);
    Ok(())
}

#[test]
fn pass_keeps_its_sources_until_their_copies_are_over() -> Result<()> {
    let session = FakeDriver::session();
    let gpu = Gpu::open(0)?;
    let buffer = DeviceBuffer::new(&gpu, BYTES)?;
    let copied_from = |finish: bool| -> Result<Vec<Entry>> {
        let source = sources(&gpu, 1)?.remove(0);
        let mut pass = gpu.begin()?;
        // Nothing waits for it.
        drop(pass.copy_ahead(&source, buffer.all())?);
        drop(source);
        session.take_log();
        assert_eq!(session.pinned_in_use(0), BYTES as u64);
        if finish {
            pass.finish()?.wait()?;
        } else {
            drop(pass);
        }
        assert_eq!(session.pinned_in_use(0), 0);
        Ok(session.take_log())
    };
    copied_from(true)?;
    assert_eq!(download::<f32>(&buffer, NUMBERS)?, [1.0; NUMBERS]);
    let waited = || Entry::Call { device: Some(0), name: "cuStreamSynchronize".to_owned(), code: 0 };
    assert_eq!(copied_from(false)?, [waited(), waited(), Entry::FreeHost { device: 0, bytes: BYTES as u64 }]);
    Ok(())
}

#[test]
fn sources_of_a_lost_device_stay_until_the_reset() -> Result<()> {
    let session = FakeDriver::session();
    let gpu = Gpu::open(0)?;
    let source = sources(&gpu, 1)?.remove(0);
    let buffer = DeviceBuffer::new(&gpu, BYTES)?;
    for finish in [true, false] {
        let gpu = Gpu::open(0)?;
        let source = sources(&gpu, 1)?.remove(0);
        let buffer = DeviceBuffer::new(&gpu, BYTES)?;
        let mut pass = gpu.begin()?;
        let copy = pass.copy_ahead(&source, buffer.all())?;
        if finish {
            session.fail("cuEventSynchronize", 1, 2);
            assert!(pass.finish()?.wait().unwrap_err().is_out_of_memory());
        } else {
            session.fail("cuStreamSynchronize", 2, 2);
            drop(pass);
        }
        let in_use = session.pinned_in_use(0);
        // The copy may not be over, so the memory is never freed.
        drop((copy, source, buffer, gpu));
        assert_eq!(session.pinned_in_use(0), in_use);
    }
    let mut pass = gpu.begin()?;
    let copy = pass.copy_ahead(&source, buffer.all())?;
    session.fail("cuEventSynchronize", 1, 700);
    let error = pass.finish()?.wait().unwrap_err();
    assert!(error.is_lost());
    let in_use = session.pinned_in_use(0);
    let mut results = vec![gpu.begin().map(drop)];
    results.push(Gpu::reset(0));
    drop((copy, source, buffer));
    assert!(results.into_iter().all(|result| result.is_err()));
    assert_eq!(session.pinned_in_use(0), in_use);
    drop(gpu);
    Gpu::reset(0)?;
    assert_eq!(session.pinned_in_use(0), 0);
    Ok(())
}

#[test]
fn buffers_that_do_not_fit_are_refused() -> Result<()> {
    let _session = FakeDriver::session();
    let (gpu, other) = (Gpu::open(0)?, Gpu::open(0)?);
    let sources = [sources(&gpu, 1)?.remove(0), sources(&other, 1)?.remove(0)];
    let buffers = [DeviceBuffer::new(&gpu, 2 * BYTES)?, DeviceBuffer::new(&other, BYTES)?];
    let of_other = other.begin()?.copy_ahead(&sources[1], buffers[1].all())?;
    let mut pass = gpu.begin()?;
    let results = [
        pass.copy_ahead(&sources[0], buffers[0].all()).map(drop),
        pass.copy_ahead(&sources[0], buffers[0].slice(0..BYTES - 4)?).map(drop),
        pass.copy_ahead(&sources[0], buffers[1].all()).map(drop),
        pass.copy_ahead(&sources[1], buffers[0].slice(0..BYTES)?).map(drop),
        pass.await_copy(&of_other),
    ];
    for error in results.into_iter().map(Result::unwrap_err) {
        assert!(matches!(error, CudaError::Misuse { .. }), "{error}");
    }
    pass.copy_ahead(&sources[0], buffers[0].slice(BYTES..2 * BYTES)?)?;
    pass.finish()?.wait()?;
    assert!(!gpu.is_lost());
    Ok(())
}
