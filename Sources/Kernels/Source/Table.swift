import KernelTypes

@inline(never)
public func kernelTable(name: StaticString) -> KernelTable {
  KernelTable(
    name: name, tokensPerBlock: tokensPerBlock, panelWidth: panelWidth,
    product: { product($0, $1, $2, $3, $4, $5, $6) }, productAbove: { productAbove($0) }, packTokens: { packTokens($0, $1, $2, $3, $4) },
    packPanel: { packPanel($0, $1, $2, $3, $4, $5) }, screening: screeningKernels(), signs: signKernels(),
    skipping: skippingKernels(), fourier: fourierKernels(), images: imageKernels(), scan: { scan($0, $1, $2, $3) },
    partition: { partition($0, $1, $2) }, keepLargest: { keepLargest($0, $1, $2) },
    weightedRows: { weightedRows($0, $1, $2, $3, $4, $5, $6) }, dots: { dots($0, $1, $2, $3, $4, $5, $6) },
    dot: { dot($0, $1, $2) }, addScaled: { addScaled($0, $1, $2, $3) }, subtractFrom: { subtractFrom($0, $1, $2) },
    loss: { loss($0, $1, $2) }, slope: { slope($0, $1, $2, $3, $4) }, adam: { adam($0, $1, $2, $3, $4, $5) },
    standardizeFloat32: { standardizeFloat32($0, $1, $2, $3, $4) },
    standardizeFloat16: { standardizeFloat16($0, $1, $2, $3, $4) },
    standardizeFloat64: { standardizeFloat64($0, $1, $2, $3, $4) },
    standardizeBFloat16: { standardizeBFloat16($0, $1, $2, $3, $4) })
}

private func screeningKernels() -> ScreeningKernels {
  ScreeningKernels(
    isFast: screeningIsFast, tokenOffset: screenTokenOffset, tokensPerBlock: screenTokensPerBlock,
    panelWidth: screenPanelWidth,
    quantize: { quantize($0, $1, $2, $3, $4, $5, $6) }, packToken: { packScreenedToken($0, $1, $2, $3) },
    screen: { screen($0) },
    refine: { screenRefine($0, $1, $2, $3, $4, $5, $6) },
    uppers: { screenUppers($0, $1, $2, $3, $4, $5, $6, $7, $8) }, floor: { floorOfLargest($0, $1, $2) },
    chains: { chains($0, $1, $2, $3, $4, $5, $6, $7, $8) })
}

private func signKernels() -> SignKernels {
  SignKernels(
    words: { signWords($0, $1, $2, $3) }, addSigns: { addSigns($0, $1, $2, $3) },
    sums: { signSums($0, $1, $2, $3, $4, $5, $6, $7) }, maskAndSum: { maskAndSum($0, $1, $2, $3, $4, $5, $6, $7) },
    transposeRows: { transposeRows($0, $1, $2, $3, $4) }, transposeLanes: { transposeLanes($0, $1, $2, $3, $4) },
    addTransposed: { addTransposed($0, $1, $2, $3, $4, $5) })
}

private func skippingKernels() -> SkippingKernels {
  SkippingKernels(
    width: skippingWidth, add: { addSkippingZeros($0, $1, $2, $3, $4, $5, $6) },
    packColumns: { packColumns($0, $1, $2, $3, $4, $5) }, rectify: { rectify($0, $1, $2, $3) })
}

private func fourierKernels() -> FourierKernels {
  FourierKernels(
    pass: { fourierPass($0, $1, $2, $3, $4, $5, $6, $7) }, loadRows: { loadRows($0, $1, $2) },
    storeRows: { storeRows($0, $1, $2, $3) }, splitPairs: { splitPairs($0, $1, $2, $3, $4, $5, $6) },
    joinPairs: { joinPairs($0, $1, $2, $3, $4, $5, $6) })
}

private func imageKernels() -> ImageKernels {
  ImageKernels(
    bandOfRows: { bandOfRows($0, $1, $2, $3, $4, $5) }, bandOfLanes: { bandOfLanes($0, $1, $2, $3, $4, $5) },
    noisyRow: { noisyRow($0, $1, $2, $3) }, colours: { colours($0, $1, $2, $3, $4, $5) },
    coloursAdjoint: { coloursAdjoint($0, $1, $2, $3, $4, $5, $6) }, spectrum: { spectrum($0, $1, $2, $3, $4) },
    phaseGradient: { phaseGradient($0, $1, $2, $3, $4, $5, $6) }, ascend: { ascend($0, $1, $2, $3, $4, $5) })
}
