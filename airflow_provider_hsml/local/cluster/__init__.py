"""
The simulated cluster: rollouts, instances, and the engines that run models.

The modules that carry out a change of a deployment and its requests:

======================  ================================================================================================
``slots``               The state of each deployment, with its rollouts and its change. Clients read it.
``changes``             One change in progress: its pauses, its holds, and its cancellation.
``change_runner``       Runs each change in a thread of its own. A newer change cancels the older one.
``rollouts``            One revision with its desired state, instance and logs. Data only.
``rollout_controller``  The steps of a change: starts a new rollout, switches to it, and drains the old one.
``traffic``             Leads each request to the instance that answers it, and wakes idle deployments.
======================  ================================================================================================

``cluster`` has the commands, each of which begins a change. ``watch`` finds crashed and idle instances.
"""
