"""Imaging: a data set's visibilities of one target become a cleaned image with a source list.

A batch program, ``python3 -m pipelines.imaging``. The way of the data through the modules:

===================  ========================================================================
`parallel_hands`     correlation products and hands -> Stokes I with weights (pure)
`options`            the command line; `settings` what it says
`selection`          data set -> which target, dumps and products there are to image
`visibilities`       reading in blocks with bounded memory into a spool on disk
`weighting`          natural, uniform, Briggs
`geometry`           pixel size and size of the image, its world coordinates
`measurement`        weighted visibilities and the image they make: dirty, PSF, residual
`gridder`            the one door to ducc0's w-gridder: visibilities <-> image
`beam`               the Gaussian beam that fits the point spread function, its sidelobes
`minor_cycle`        Clark's minor cycle (numba)
`clean`              the major cycles around it
`restore`            components -> restored image
`sources`            peaks of the restored image -> source list
`quality`            what the image is worth, in figures
`imager`             all of it, one after the other
`fits`, `picture`    files for programs and for people
`compare`            found sources against a model of the sky
===================  ========================================================================
"""
