"""The demonstration on pretrained networks, whose weights are in packages of the Python index. Nothing is downloaded.

`usae.demo.pretrained.catalogue` says which networks, under which licences. `networks` reads them from the installed packages,
which are not imported. `shipped` has photographs with their authors and licences, and `pictures` cuts crops of them and of
others; some photographs are held out as a whole. `demonstration` trains a universal sparse autoencoder on the activations and
draws its concepts. All of it needs ``pip install 'usae[demo]'``.
"""
