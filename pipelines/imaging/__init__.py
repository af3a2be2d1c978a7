"""Imaging: a data set's visibilities of one target become a cleaned image with a source list.

A batch program, ``python3 -m pipelines.imaging``. The way of the data through the modules:

======================  =====================================================================
`parallel_hands`        correlation products and hands -> Stokes I with weights (pure)
`options`, `settings`   the command line, and what it says
`source`                data sets of either format: `meerkat` (by `selection`), `measurement_set`
`visibilities`          Stokes I in memory or in a spool on disk
`weighting`, `density`  natural, uniform, Briggs
`geometry`              pixel size and size of the image, its world coordinates
`nodes`                 tracks of baselines at a few nodes instead of all dumps
`spectrum`              polynomials over the band, and the power laws that they mean
`measurement`           weighted visibilities and the images they make: dirty, PSF, residual
`gridder`               the one door to ducc0's w-gridder: visibilities <-> image
`beam`                  the Gaussian beam that fits the point spread function, its sidelobes
`minor_cycle`           Clark's minor cycle (numba); `limits` what it may do
`clean`                 the major cycles around it
`components`            what CLEAN has found, as a file
`restore`               components -> restored image
`sources`               peaks of the restored image -> source list
`quality`, `publish`    what the image is worth, in figures; told to the product's queue
`imager`                all of it, one after the other
`fits`, `picture`       files for programs and for people
`compare`               found sources against a model of the sky
======================  =====================================================================

Cubes are made by ``python3 -m pipelines.imaging.spectral``, and of parts by ``pipelines.imaging.join``:

======================  =====================================================================
`spectral`, `join`      the two programs; `spectral_settings` what the first is told
`channels`              images of single channels, one after the other
`continuum`             components of a continuum image, taken from the visibilities
`cube`                  cubes on disk, written and read a plane at a time
`cube_quality`          report of a cube; `cube_picture` its picture
======================  =====================================================================
"""
