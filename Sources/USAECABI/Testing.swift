public import CUSAE
import USAE

// usae_testing.h

@c @implementation
public func usae_maximizer_gradients(
  _ maximizer: OpaquePointer?, _ colours: UnsafeMutablePointer<Float>?, _ planes: UnsafeMutablePointer<Float>?,
  _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    try ImageMaximizer.at(maximizer).gradients(
      colours: try required(colours, "colours"), planes: try required(planes, "planes"))
  }
}

@c @implementation
public func usae_rfft2(
  _ planes: Int64, _ height: Int64, _ width: Int64, _ image: UnsafePointer<Float>?, _ re: UnsafeMutablePointer<Float>?,
  _ im: UnsafeMutablePointer<Float>?, _ n_threads: Int32, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let work = try InterruptibleWork(threadsWanted: Int(n_threads))
    try FourierTransform(height: Int(height), width: Int(width)).forward(
      try required(image, "image"), planes: Int(planes), re: try required(re, "re"), im: try required(im, "im"), work: work)
  }
}

@c @implementation
public func usae_irfft2(
  _ planes: Int64, _ height: Int64, _ width: Int64, _ re: UnsafePointer<Float>?, _ im: UnsafePointer<Float>?,
  _ image: UnsafeMutablePointer<Float>?, _ n_threads: Int32, _ error: UnsafeMutablePointer<usae_error>?
) -> usae_status {
  status(error) { () throws(USAEError) in
    let work = try InterruptibleWork(threadsWanted: Int(n_threads))
    try FourierTransform(height: Int(height), width: Int(width)).inverse(
      re: try required(re, "re"), im: try required(im, "im"), planes: Int(planes), image: try required(image, "image"),
      work: work)
  }
}
