import KernelTypes

@inline(never)
public func kernelTable(name: StaticString) -> KernelTable {
  KernelTable(
    name: name,
    product: ProductKernels(
      tokensPerBlock: tokensPerBlock, panelWidth: panelWidth, block: product, pairsAbove: productPairsAbove,
      packTokens: packTokens, packPanel: packPanel),
    screening: ScreeningKernels(
      isFast: screeningIsFast, tokenOffset: screenTokenOffset, tokensPerBlock: screenTokensPerBlock,
      panelWidth: screenPanelWidth, quantize: quantize, packToken: packScreenedToken, screen: screen, refine: screenRefine,
      upperBounds: screenUpperBounds, exactProducts: exactProducts),
    selection: SelectionKernels(
      scan: scan, partition: partition, keepLargest: keepLargest, smallestOfLargest: smallestOfLargest),
    rows: RowKernels(
      weightedSum: weightedSum, dots: dots, dot: dot, addScaled: addScaled, subtractFrom: subtractFrom),
    standardize: StandardizationKernels(
      float32: standardizeFloat32, float16: standardizeFloat16, float64: standardizeFloat64,
      bfloat16: standardizeBFloat16),
    training: TrainingKernels(loss: loss, slope: slope, adam: adam),
    signs: SignKernels(words: signWords, addSigns: addSigns, sums: signSums, maskAndSum: maskAndSum),
    skipping: SkippingKernels(
      width: skippingWidth, add: addSkippingZeros, packColumns: packColumns, rectify: rectify),
    transpose: TransposeKernels(rows: transposeRows, lanes: transposeLanes, addLanes: addTransposedLanes),
    fourier: FourierKernels(
      pass: fourierPass, loadRows: loadRows, storeRows: storeRows, splitPairs: splitPairs, joinPairs: joinPairs),
    images: ImageKernels(
      bandOfRows: bandOfRows, bandOfLanes: bandOfLanes, noisyRow: noisyRow, colours: colours, coloursAdjoint: coloursAdjoint,
      spectrum: spectrum, phaseGradient: phaseGradient, ascend: ascend))
}
