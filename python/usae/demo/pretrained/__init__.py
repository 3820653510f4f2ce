"""The demonstration on pretrained networks, whose weights are in packages of the Python index. Nothing is downloaded.

`usae.demo.pretrained.catalogue` says which networks, under which licences. `networks` reads them from the installed packages,
which are not imported, `pictures` cuts crops of photographs, of which some are held out as a whole, and `demonstration` trains
a universal sparse autoencoder on the activations and draws its concepts. All of it needs ``pip install 'usae[demo]'``.
"""
